"""The same question twice: with the passages and without."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Protocol

from control.engines.base import Message
from foundation.errors import InputError
from foundation.text import normalise

if TYPE_CHECKING:
    from llama_index.core.schema import NodeWithScore
    from transformers import PreTrainedTokenizerBase

# Chosen by closed-book accuracy and plain-RAG hit on capitals among a dozen wordings: a 135M model
# follows "Passages: ... Question: ..." and answers a bare question best.
PASSAGES, QUESTION = "Passages:\n", "Question: "
SYSTEM = "You answer questions briefly and factually."
# Numbered passages lead small models to write numbers: of 40 answers of the packaged model to
# questions on real documents 4 held "[4]" or the like, and none did with titles instead.
AS_ASKED = (
    "Answer with just what the question asks for: a fact in a few words, an explanation in full."
)
BRIEFLY = "Answer with a few words, not a sentence."
ORIGIN_KEYS = ("title", "heading", "page", "date")  # of a passage's metadata


@dataclass(frozen=True)
class Quote:
    """What the passages claim, in their own words.

    Attributes:
        text: As it is told: the sentence that claims it, or of a row of a table the cell.
        claim: Its words that answer the question.
        confidence: The reader's, that they do, in [0, 1].
        row: The row; empty where a sentence is told.
    """

    text: str
    claim: str
    confidence: float = 0.0
    row: str = ""


@dataclass(frozen=True)
class Prompt:
    """The prompts of the two branches; they end in the same bytes.

    Attributes:
        context: With the passages.
        memory: Without them; the same as ``context`` if there are none.
        question: The question as written in both.
        texts: The passages that fit into the window, as written in ``context``, titles included.
        trust: In each of them, in [0, 1]; empty where it is not known.
        context_chat: ``context`` before it was put into the chat template.
        memory_chat: The same of ``memory``.
        quote: Takes the place of an answer without support in the passages; ``None`` where nothing
            is known that they claim.
        answers: How likely any of the passages that a search has found answers the question, in
            [0, 1]; ``None`` where they were given, or not read for that.
    """

    context: str
    memory: str
    question: str
    texts: tuple[str, ...] = ()
    trust: tuple[float, ...] = ()
    context_chat: tuple[Message, ...] = ()
    memory_chat: tuple[Message, ...] = ()
    quote: Quote | None = None
    answers: float | None = None

    @property
    def passages(self) -> int:
        """How many of the given passages fit into the window."""
        return len(self.texts)


class PromptFormat(Protocol):
    """How a model's prompts are written."""

    def without_markup(self, text: str) -> str:
        """A text without control tokens, by which a document could pose as the user."""

    def render(self, messages: Sequence[Message]) -> str:
        """The messages up to where the answer begins; empty where only a server can write it."""

    def length(self, text: str) -> int:
        """How many tokens a text has."""


@dataclass(frozen=True)
class TokenizerFormat:
    """Prompts by the chat template of a tokenizer; a base model without one gets plain text."""

    tokenizer: "PreTrainedTokenizerBase"

    def without_markup(self, text: str) -> str:
        """``text`` without the chat's control tokens."""
        for token in self.tokenizer.added_tokens_decoder.values():
            if token.special:
                text = text.replace(token.content, " ")
        return text

    def render(self, messages: Sequence[Message]) -> str:
        """The messages up to where the answer begins."""
        if is_chat(self.tokenizer):
            rendered: str = self.tokenizer.apply_chat_template(
                [dict(each) for each in messages], tokenize=False, add_generation_prompt=True
            )
            return rendered
        system, user = (each["content"] for each in messages)
        asked = user if user.startswith(PASSAGES) else f"{QUESTION}{user}"
        return f"{system}\n\n{asked}\nAnswer:"

    def length(self, text: str) -> int:
        """How many tokens a text has."""
        return len(self.tokenizer(text, add_special_tokens=False).input_ids)


def build(
    model: PromptFormat,
    question: str,
    passages: Sequence[str],
    room: int,
    trust: Sequence[float] = (),
    system: str = SYSTEM,
    titles: Sequence[str] = (),
) -> Prompt:
    """Write both prompts, dropping passages from the end until the longer one fits.

    Passages are numbered where none of them has a title, as in the prompts that the dial was
    calibrated with; else each begins with its title.

    Args:
        model: Whose chat template is used: an engine, or a `TokenizerFormat`.
        question: The question, the last thing in both texts.
        passages: Texts in order of relevance.
        room: Longest prompt, in tokens.
        trust: In each passage, in [0, 1]; empty where it is not known.
        system: The system message.
        titles: What each passage is from, see `origin`; empty where it is not known. With titles
            and the usual system message, the answer is asked for in the form of the question.

    Raises:
        InputError: The question alone does not fit.
    """
    titled = any(titles)
    as_asked = AS_ASKED if titled and system == SYSTEM else ""
    question, system = model.without_markup(question), model.without_markup(system)
    memory_chat = _chat(question, (), system)
    memory = model.render(memory_chat)
    used = length(model, memory, memory_chat)
    if used > room:
        raise InputError(
            f"the question takes {used} tokens, but the model's window leaves room for {room}; "
            "ask a shorter question"
        )
    fitting = []
    if titled:
        passages = [with_title(*pair) for pair in zip(titles, passages, strict=True)]
    for passage in map(model.without_markup, passages):
        used += model.length(passage)
        if used > room:
            break
        fitting.append(passage)
    # Numbering and joining cost tokens too: only the rendered prompt tells.
    while fitting:
        chat = _chat(question, fitting, system, titled, as_asked)
        context = model.render(chat)
        if length(model, context, chat) <= room:
            kept = tuple(trust[: len(fitting)])
            return Prompt(context, memory, question, tuple(fitting), kept, chat, memory_chat)
        fitting.pop()
    return Prompt(memory, memory, question, context_chat=memory_chat, memory_chat=memory_chat)


def briefly(model: PromptFormat, prompt: Prompt, room: int) -> Prompt | None:
    """A prompt that asks for the same in a few words; ``None`` where it is longer than ``room``."""
    chats = []
    for chat in (prompt.context_chat, prompt.memory_chat):
        *before, last = chat
        asked: Message = {"role": last["role"], "content": f"{last['content']}\n{BRIEFLY}"}
        chats.append((*before, asked))
    context_chat, memory_chat = chats
    context = model.render(context_chat)
    if length(model, context, context_chat) > room:
        return None
    memory = model.render(memory_chat)
    return replace(
        prompt, context=context, memory=memory, context_chat=context_chat, memory_chat=memory_chat
    )


def is_chat(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Whether the tokenizer has a chat template."""
    return bool(tokenizer.chat_template)


def origin(metadata: Mapping[str, Any]) -> str:
    """What a passage is from, by its metadata: title, heading, page and date, as far as known."""
    title, heading, page, date = (
        " ".join(str(metadata.get(key) or "").split()) for key in ORIGIN_KEYS
    )
    named = ", ".join(dict.fromkeys(each for each in (title, heading) if each))
    details = ", ".join(each for each in (page and f"page {page}", date) if each)
    return f"{named} ({details})".strip() if details else named


def path(node: "NodeWithScore") -> str:
    """The path of the file that a passage was read from; empty if it was given."""
    return str(node.metadata.get("source", ""))


def file_names(paths: Iterable[str]) -> dict[str, str]:
    """What files are called: their names, with as many folders before as tell them apart.

    Args:
        paths: Of the files; an empty one is of none.
    """
    names = {path: PurePath(path).name for path in paths}
    parts = {path: PurePath(path).parts for path in names}
    for length in range(2, max(map(len, parts.values()), default=0) + 1):
        shared = Counter(names.values())
        names |= {
            path: str(PurePath(*parts[path][-length:]))
            for path, name in names.items()
            if shared[name] > 1
        }
    return names


def with_title(title: str, text: str) -> str:
    """A passage with its title before it, unless it begins with that itself."""
    return text if normalise(text).startswith(normalise(title)) else f"{title}: {text}"


def _chat(
    question: str,
    passages: Sequence[str],
    system: str,
    titled: bool = False,
    as_asked: str = "",
) -> tuple[Message, ...]:
    user = question
    if passages:
        asked = f"{QUESTION}{question}"
        if titled:
            read = "\n\n".join(passages)
            asked = f"{as_asked}\n{asked}" if as_asked else asked
        else:
            read = "\n".join(f"[{number}] {text}" for number, text in enumerate(passages, start=1))
        user = f"{PASSAGES}{read}\n\n{asked}"
    return ({"role": "system", "content": system}, {"role": "user", "content": user})


def length(model: PromptFormat, rendered: str, chat: Sequence[Message]) -> int:
    """How many tokens a chat has; of the texts alone where only a server can render it."""
    return model.length(rendered or "\n".join(each["content"] for each in chat))
