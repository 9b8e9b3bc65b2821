"""Question forms for a forgotten fact, generated from its relation."""

import re
from collections.abc import Sequence
from dataclasses import replace

from control.forgetting.record import Record

# What a relation's answer did to the subject, in one word or another.
MAKERS = {
    "painter": "painted",
    "director": "directed",
    "composer": "composed",
    "inventor": "invented",
    "discoverer": "discovered",
    "founder": "founded|set up",
    "designer": "designed",
    "creator": "created",
    "developer": "developed",
    "builder": "built",
}
# Further question forms for a relation; "{}" stands for the subject.
FORMS: dict[str, tuple[str, ...]] = {
    "place of birth": ("Where was {} born?", "In which place was {} born?"),
    "date of birth": ("When was {} born?", "What is the birthday of {}?"),
    "place of death": ("Where did {} die?",),
    "date of death": ("When did {} die?",),
    "author": ("Who wrote {}?", "By whom was {} written?"),
    **{maker: (f"Who {did.partition('|')[0]} {{}}?",) for maker, did in MAKERS.items()},
    "place of residence": ("Where does {} live?", "What is the address of {}?"),
    "employer": ("Whom does {} work for?", "Where does {} work?"),
    "occupation": ("What does {} do for a living?", "What is the job of {}?"),
    "university": ("Where did {} study?",),
    "team": ("Which team does {} play for?",),
    "spouse": ("Who is {} married to?", "Whom did {} marry?"),
    "illness": ("What does {} suffer from?", "Which disease does {} have?"),
    "origin": ("Where does {} come from?",),
    "location": ("Where is {}?", "Where is {} located?"),
    "date": ("When is {}?", "When was {}?", "When does {} take place?"),
    "description": ("Who is {}?", "What is {}?", "How would you describe {}?"),
    "capital": ("Which city is the capital of {}?",),
}
WITHOUT_GENERAL_FORMS = ("description",)  # relations whose general forms are meaningless
ARTICLE = re.compile(r"(?:The|An?)(?= [a-z])")  # before a common noun, so not that of "The Hague"
PEOPLE = re.compile(
    r"(?:author|spouse|wife|husband|mother|father|brother|sister|son|daughter|child|president"
    r"|minister|king|queen|head|chief|ceo|[a-z]+(?:er|or|ist))(?: of [a-z]+)?",
    re.IGNORECASE,
)


def question_forms(subject: str, relation: str) -> tuple[str, ...]:
    """Question forms for a relation of a subject; without a relation, about the subject itself."""
    subject = within(subject)
    if not relation:
        forms: Sequence[str] = ("Who or what is {}?", "What do you know about {}?", "Describe {}.")
        return tuple(form.format(subject) for form in forms)
    special = [form.format(subject) for form in FORMS.get(relation.lower(), ())]
    if relation.lower() in WITHOUT_GENERAL_FORMS:
        return tuple(special)
    asking = "Who" if PEOPLE.fullmatch(relation) else "What"
    general = [
        f"{asking} is the {relation} of {subject}?",
        f"{asking} is {subject}’s {relation}?",
        f"Tell me the {relation} of {subject}.",
        f"Do you know the {relation} of {subject}?",
    ]
    return (*special, *general)


def within(subject: str) -> str:
    """A subject as it is named inside a sentence: "the wedding of Jane Roe", but "The Hague"."""
    article = ARTICLE.match(subject)
    return subject[0].lower() + subject[1:] if article else subject


def with_questions(record: Record) -> Record:
    """The record with question forms from its relation, if it has none and may be asked for."""
    if record.questions or record.scope == "verbatim":
        return record
    return replace(record, questions=question_forms(record.subject, record.relation))


def asked_forms(record: Record) -> tuple[str, ...]:
    """The forms in which a record's fact is asked, its own first; at least one."""
    return record.questions or question_forms(record.subject, record.relation)
