"""The same question twice: with the passages and without."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from foundation.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Chosen by closed-book accuracy and plain-RAG hit on capitals among a dozen wordings: a 135M model
# follows "Passages: ... Question: ..." and answers a bare question best.
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
    """

    context: str
    memory: str
    question: str
    texts: tuple[str, ...] = ()
    trust: tuple[float, ...] = ()

    @property
    def passages(self) -> int:
        """How many of the given passages fit into the window."""
        return len(self.texts)


def build(
    tokenizer: "PreTrainedTokenizerBase",
    question: str,
    passages: Sequence[str],
    room: int,
    trust: Sequence[float] = (),
    system: str = SYSTEM,
) -> Prompt:
    """Write both prompts, dropping passages from the end until the longer one fits.

    Args:
        tokenizer: Its chat template is used; a base model without one gets plain text.
        question: The question, the last thing in both texts.
        passages: Texts in order of relevance.
        room: Longest prompt, in tokens.
        trust: In each passage, in [0, 1]; empty where it is not known.
        system: The system message.

    Raises:
        InputError: The question alone does not fit.
    """
    question, system = (_without_markup(tokenizer, text) for text in (question, system))
    memory = _render(tokenizer, question, (), system)
    used = _length(tokenizer, memory)
    if used > room:
        raise InputError(
            f"the question takes {used} tokens, but the model's window leaves room for {room}; "
            "ask a shorter question"
        )
    fitting = []
    for passage in (_without_markup(tokenizer, passage) for passage in passages):
        used += _length(tokenizer, passage)
        if used > room:
            break
        fitting.append(passage)
    # Numbering and joining cost tokens too: only the rendered prompt tells.
    while fitting:
        context = _render(tokenizer, question, fitting, system)
        if _length(tokenizer, context) <= room:
            kept = tuple(trust[: len(fitting)])
            return Prompt(context, memory, question, tuple(fitting), kept)
        fitting.pop()
    return Prompt(memory, memory, question)


def is_chat(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Whether the tokenizer has a chat template."""
    return bool(tokenizer.chat_template)


def _render(
    tokenizer: "PreTrainedTokenizerBase", question: str, passages: Sequence[str], system: str
) -> str:
    numbered = "\n".join(f"[{number}] {text}" for number, text in enumerate(passages, start=1))
    if not is_chat(tokenizer):
        block = f"Passages:\n{numbered}\n\n" if passages else ""
        return f"{system}\n\n{block}Question: {question}\nAnswer:"
    user = f"Passages:\n{numbered}\n\nQuestion: {question}" if passages else question
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def _without_markup(tokenizer: "PreTrainedTokenizerBase", text: str) -> str:
    """``text`` without the chat's control tokens, by which a document could pose as the user."""
    for token in tokenizer.added_tokens_decoder.values():
        if token.special:
            text = text.replace(token.content, " ")
    return text


def _length(tokenizer: "PreTrainedTokenizerBase", text: str) -> int:
    return len(tokenizer(text, add_special_tokens=False).input_ids)
