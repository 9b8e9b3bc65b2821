"""The page's tab for forgetting: a form, and the list of forgotten facts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import gradio as gr

from app import described
from app.page import access, views
from app.page import ask as page_ask
from app.page import facts as page_facts
from app.page.ask import QUIET, session_of
from app.page.conversation import ConversationTurn, SessionTasks
from control.forgetting.aliases import with_aliases
from control.forgetting.questions import with_questions
from control.forgetting.record import Record, Scope, checked, shown
from control.forgetting.requests import propose
from foundation.text import counted

if TYPE_CHECKING:
    from app.page.ask import AskComponents
    from app.page.lists import Refresh
    from app.page.tools import MakeAttempts
    from app.server.documents import ElsewhereDocument
    from app.server.service import Service

SCOPES = [
    ("this fact: its question is refused", "fact"),
    ("only these answers: the question may be answered otherwise", "claim"),
    ("everything about the subject", "subject"),
    ("the wording of the text given as answer: its content may be told", "verbatim"),
]


@dataclass(frozen=True)
class RecordForm:
    """The fields of a record, as they stand in the form.

    Attributes:
        what: Subject, relation, answers and scope.
        more: Other names of subject and answers, and questions.
        why: Reason, and who asks.
    """

    what: list[gr.components.Component]
    more: list[gr.components.Component]
    why: list[gr.components.Component]

    @property
    def fields(self) -> list[gr.components.Component]:
        """All of them, in the order of `record`."""
        return [*self.what, *self.more, *self.why]


def build(
    service: "Service",
    running: SessionTasks,
    talk: "AskComponents",
    attempt: "MakeAttempts | None" = None,
) -> "Refresh":
    """Build the tab; return how its list is rendered again."""
    with gr.Column(elem_classes="form-column"):
        sentence = gr.Textbox(
            label="What is to be forgotten",
            placeholder="Forget that the capital of Peru is Lima",
            lines=1,
            submit_btn="Fill in",
            elem_id="sentence",
        )
        form = _form()
        add = gr.Button("Forget this", variant="primary", elem_id="forget")
    said = gr.HTML(apply_default_css=False, elem_id="forget-said")
    refresh = page_facts.build(service, running, said, attempt)
    draw, _, facts = refresh

    def filled(text: str, request: gr.Request) -> tuple[Any, ...]:
        try:
            access.check(request)
            proposed = with_aliases(with_questions(propose(text)))
        except Exception as error:
            # No fact of an earlier sentence, which could be forgotten for this one.
            return (*values(Record("")), views.error(error, service))
        hint = "Look it over, then press “Forget this”."
        return (*values(proposed), views.render("said", text=hint))

    def added(request: gr.Request, *given: Any) -> tuple[Any, ...]:
        *typed, turns = given
        fields = [text or "" for text in typed]  # a box that nobody touched comes as None
        try:
            access.check(request)
            wanted = record(*fields)
            elsewhere = service.documents.only_elsewhere(wanted)
            [kept] = service.forget([wanted])
        except Exception as error:
            return (*_kept(form.fields), views.error(error, service), gr.skip(), *_kept(talk.drawn))
        text = f"{described.fact(kept)}: forgotten from now on."
        text = " ".join([text, *service.adapter_notices([kept]), *_where(kept, elsewhere)])
        after: tuple[Any, ...] = (gr.skip(),) * len(talk.drawn)
        if any(turn.holds([kept]) for turn in cast("list[ConversationTurn]", turns)):
            text += " The conversation held it, so that is gone as well."
            running.leave(session_of(request))
            after = page_ask.blank()
        blank = [*values(Record("")), "", ""]
        told = views.render("said", text=text)
        return (*blank, told, draw(request), *after)

    sentence.submit(filled, sentence, [*form.what, *form.more, said], **QUIET)
    add.click(
        added,
        [*form.fields, talk.turns],
        [*form.fields, said, *facts, *talk.drawn],
        **QUIET,
    )
    return refresh


def record(
    subject: str,
    relation: str,
    answers: str,
    scope: str,
    aliases: str,
    answer_aliases: str,
    questions: str,
    reason: str,
    who: str,
) -> Record:
    """Return the record of the form.

    Raises:
        InputError: It cannot be enforced.
    """
    given = Record(
        subject=subject.strip(),
        relation=relation.strip(),
        answers=(answers.strip(),) if scope == "verbatim" else _lines(answers),
        scope=cast("Scope", scope),
        aliases=_lines(aliases),
        answer_aliases=_lines(answer_aliases),
        questions=_lines(questions),
        reason=reason.strip(),
        who=who.strip() or page_facts.WHO,
    )
    return checked(with_aliases(with_questions(checked(given))))


def values(one: Record) -> list[str]:
    """Return the form's values for a record, without reason and who."""
    texts = (one.aliases, one.answer_aliases, one.questions)
    more = ["\n".join(each) for each in texts]
    return [one.subject, one.relation, "\n".join(one.answers), one.scope, *more]


def _form() -> RecordForm:
    with gr.Group(elem_id="fact"):
        what = [
            gr.Textbox(label="Subject", placeholder="Peru", elem_id="subject"),
            gr.Textbox(label="What about it", placeholder="capital", elem_id="relation"),
            gr.Textbox(
                label="Answers that must not be said, one a line",
                placeholder="Lima",
                max_lines=6,
                elem_id="answers",
            ),
            gr.Radio(SCOPES, value="fact", label="How much", elem_id="scope"),
        ]
        with gr.Accordion("Other names, questions, reason", open=False, elem_id="further"):
            more = [
                gr.Textbox(label="Other names of the subject, one a line", lines=2),
                gr.Textbox(label="Other names of the answers, one a line", lines=2),
                gr.Textbox(label="How it may be asked, one a line", lines=3),
            ]
            why = [
                gr.Textbox(label="Why; kept in the audit"),
                gr.Textbox(label="Who asks for it; kept in the audit"),
            ]
    return RecordForm([*what], [*more], [*why])


def _where(one: Record, documents: "Sequence[ElsewhereDocument]") -> list[str]:
    """Say in which documents a forgotten fact may stand under another name of its subject."""
    if not documents:
        return []
    passages = counted(sum(document.passages for document in documents), "stored passage")
    names = ", ".join(document.name for document in documents)
    return [
        f"Its answer stands in {passages} without the name {shown(one.subject)}: {names}. If that "
        "is this fact under another name, it can still be told: remove it from the list, then add "
        "it again with that name among the other names of the subject."
    ]


def _kept(*components: list[Any]) -> list[Any]:
    """Return a "no change" for each component."""
    return [gr.skip() for each in components for _ in each]


def _lines(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
