"""The same question twice: with the passages and without."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from control.engines.base import Message
from foundation.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Chosen by closed-book accuracy and plain-RAG hit on capitals among a dozen wordings: a 135M model
# follows "Passages: ... Question: ..." and answers a bare question best.
PASSAGES, QUESTION = "Passages:\n", "Question: "
SYSTEM = "You answer questions briefly and factually."


@dataclass(frozen=True)
class Prompt:
    """The prompts of the two branches; they end in the same bytes.

    Attributes:
        context: With the passages.
        memory: Without them; the same as ``context`` if there are none.
        question: The question as written in both.
        texts: The passages that fit into the window, as written in ``context``.
        trust: In each of them, in [0, 1]; empty where it is not known.
        context_chat: ``context`` before it was put into the chat template.
        memory_chat: The same of ``memory``.
    """

    context: str
    memory: str
    question: str
    texts: tuple[str, ...] = ()
    trust: tuple[float, ...] = ()
    context_chat: tuple[Message, ...] = ()
    memory_chat: tuple[Message, ...] = ()

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
) -> Prompt:
    """Write both prompts, dropping passages from the end until the longer one fits.

    Args:
        model: Whose chat template is used: an engine, or a `TokenizerFormat`.
        question: The question, the last thing in both texts.
        passages: Texts in order of relevance.
        room: Longest prompt, in tokens.
        trust: In each passage, in [0, 1]; empty where it is not known.
        system: The system message.

    Raises:
        InputError: The question alone does not fit.
    """
    question, system = model.without_markup(question), model.without_markup(system)
    memory_chat = _chat(question, (), system)
    memory = model.render(memory_chat)
    used = _length(model, memory, memory_chat)
    if used > room:
        raise InputError(
            f"the question takes {used} tokens, but the model's window leaves room for {room}; "
            "ask a shorter question"
        )
    fitting = []
    for passage in map(model.without_markup, passages):
        used += model.length(passage)
        if used > room:
            break
        fitting.append(passage)
    # Numbering and joining cost tokens too: only the rendered prompt tells.
    while fitting:
        chat = _chat(question, fitting, system)
        context = model.render(chat)
        if _length(model, context, chat) <= room:
            kept = tuple(trust[: len(fitting)])
            return Prompt(context, memory, question, tuple(fitting), kept, chat, memory_chat)
        fitting.pop()
    return Prompt(memory, memory, question, context_chat=memory_chat, memory_chat=memory_chat)


def is_chat(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Whether the tokenizer has a chat template."""
    return bool(tokenizer.chat_template)


def _chat(question: str, passages: Sequence[str], system: str) -> tuple[Message, ...]:
    numbered = "\n".join(f"[{number}] {text}" for number, text in enumerate(passages, start=1))
    user = f"{PASSAGES}{numbered}\n\n{QUESTION}{question}" if passages else question
    return ({"role": "system", "content": system}, {"role": "user", "content": user})


def _length(model: PromptFormat, rendered: str, chat: Sequence[Message]) -> int:
    return model.length(rendered or "\n".join(each["content"] for each in chat))
