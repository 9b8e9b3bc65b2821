"""Fulcrum as a LlamaIndex language model: two-branch decoding inside any query engine.

    engine = index.as_query_engine(llm=FulcrumLLM(model, alpha=0.75), text_qa_template=QA_TEMPLATE)

LlamaIndex hands a language model one string. `QA_TEMPLATE` writes passages and question into it as
JSON on two lines, where no text can pose as the other, and `FulcrumLLM` reads them back: such a
prompt is decoded in two branches, with the passages and without. Every other prompt (refining an
answer, condensing a conversation) is answered by plain decoding.
"""

import json
import logging
import queue
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

from llama_index.core.base.llms.generic_utils import messages_to_prompt
from llama_index.core.base.llms.types import (
    ChatMessage,
    CompletionResponse,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
)
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.llms.custom import CustomLLM
from llama_index.core.prompts import PromptTemplate, PromptType

from control import calibration as calibrations
from control import dial, prompts
from control.calibration import Calibration
from control.decoding import Alpha, Decoding
from control.dial import Settled
from control.model import LanguageModel
from control.prompts import Prompt
from control.trace import TokenTrace
from foundation.errors import InputError

log = logging.getLogger(__name__)

HEAD = "Answer the question from the passages."
LAYOUT = re.compile(rf"{HEAD}\nPassages \(JSON\): (.*)\nQuestion \(JSON\): (.*)")
BLANK_LINES = re.compile(r"\n\s*\n")


def _passages_as_json(context_str: str | Sequence[str] = "", **_: Any) -> str:
    """Passages on one line. LlamaIndex's synthesizers join theirs by blank lines."""
    if isinstance(context_str, str):
        context_str = BLANK_LINES.split(context_str)
    passages = [passage.strip() for passage in context_str]
    return json.dumps([passage for passage in passages if passage], ensure_ascii=False)


def _question_as_json(query_str: str = "", **_: Any) -> str:
    return json.dumps(query_str, ensure_ascii=False)


QA_TEMPLATE = PromptTemplate(
    f"{HEAD}\nPassages (JSON): {{context_str}}\nQuestion (JSON): {{query_str}}",
    prompt_type=PromptType.QUESTION_ANSWER,
    function_mappings={"context_str": _passages_as_json, "query_str": _question_as_json},
)
"""For ``text_qa_template``. ``context_str`` is a list of passages, or text in which blank lines
part them; ``query_str`` is the question."""


def read_back(prompt: str) -> tuple[str, list[str]] | None:
    """Question and passages of a prompt that `QA_TEMPLATE` wrote; ``None`` for any other."""
    match = LAYOUT.fullmatch(prompt)
    if match is None:
        if HEAD in prompt:
            log.warning(
                "a prompt holds QA_TEMPLATE among other text and is answered by plain decoding; "
                "use the template without system_prompt, query_wrapper_prompt and output_parser"
            )
        return None
    try:
        passages, question = (json.loads(part) for part in match.groups())
    except json.JSONDecodeError:
        return None
    listed = [question, *passages] if isinstance(passages, list) else [None]
    return (question, passages) if all(isinstance(text, str) for text in listed) else None


class FulcrumLLM(CustomLLM):
    """A language model with a dial between the passages and its memory, for LlamaIndex.

    The settings are those of `control.decoding.Decoding`; each may also be given to one call, as
    in ``llm.complete(prompt, alpha=1.0)``. ``calibration`` is the model's; by default the one that
    comes with Fulcrum. A response's ``raw`` is a dictionary:

    - ``tokens``: the trace of each token, as in `control.trace.TokenTrace`;
    - ``conflict``: whether passages and memory disagree; ``None`` until the answer is whole;
    - ``verdict``: what the two sides say then, as in `control.dial.Verdict`; ``None`` where they do
      not disagree, and from token rules;
    - ``passages_given``, ``passages_read``: those in the prompt, and those that the window held.

    While streaming, ``text`` and ``raw`` grow and ``delta`` is what one token added.
    """

    rule: str = Field(description="a name in control.rules.CHOICES")
    alpha: Alpha = Field(description="0 = passages only, 0.5 = plain RAG, 1 = memory only, or auto")
    temperature: float = Field(description="0 is greedy; above it, sampling")
    top_p: float = Field(description="share of probability that sampling keeps")
    seed: int = Field(description="of the sampling")
    max_new_tokens: int = Field(description="longest answer, in tokens")
    reliance: float | None = Field(
        default=None, description="in place of alpha: share of known conflicts for memory"
    )
    _language_model: LanguageModel = PrivateAttr()
    _calibration: Calibration = PrivateAttr()

    def __init__(
        self,
        language_model: LanguageModel,
        rule: str = Decoding.rule,
        alpha: Alpha = Decoding.alpha,
        temperature: float = Decoding.temperature,
        top_p: float = Decoding.top_p,
        seed: int = Decoding.seed,
        max_new_tokens: int = Decoding.max_new_tokens,
        reliance: float | None = Decoding.reliance,
        calibration: Calibration | None = None,
    ) -> None:
        # Refuses nonsense.
        how = Decoding(rule, alpha, temperature, top_p, seed, max_new_tokens, reliance)
        super().__init__(**asdict(how), messages_to_prompt=_conversation)
        self._language_model = language_model
        self._calibration = calibration or calibrations.shipped(language_model)

    @classmethod
    def class_name(cls) -> str:
        """What LlamaIndex calls the class in its records."""
        return "fulcrum_llm"

    @property
    def metadata(self) -> LLMMetadata:
        """The window, by which LlamaIndex packs passages into prompts, and the model's name."""
        return LLMMetadata(
            context_window=self._language_model.window,
            num_output=self.max_new_tokens,
            model_name=self._language_model.name,
        )

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **settings: Any) -> CompletionResponse:
        """Answer a prompt.

        Args:
            prompt: One written by `QA_TEMPLATE` for two-branch decoding; any other for plain.
            formatted: LlamaIndex's; prompts are put into the model's chat template either way.
            settings: Fields of `Decoding` for this call only.

        Raises:
            InputError: A setting or the prompt cannot be used.
        """
        how, built, given = self._prepared(prompt, settings)
        [settled] = dial.answer(self._language_model, [built], how, self._calibration)
        tokens = [asdict(token) for token in settled.trace.tokens]
        return _response(settled.trace.text.strip(), None, tokens, built, given, settled)

    @llm_completion_callback()
    def stream_complete(
        self, prompt: str, formatted: bool = False, **settings: Any
    ) -> CompletionResponseGen:
        """Answer a prompt token by token; arguments and errors as for `complete`."""
        how, built, given = self._prepared(prompt, settings)

        def responses() -> CompletionResponseGen:
            text, tokens = "", list[dict[str, Any]]()
            for item in _streamed(self._language_model, built, how, self._calibration):
                if isinstance(item, Settled):
                    yield _response(text, "", tokens, built, given, item)
                    continue
                tokens.append(asdict(item))
                delta = item.text if text else item.text.lstrip()
                text += delta
                yield _response(text, delta, tokens, built, given, None)

        return responses()

    def _prepared(self, prompt: str, settings: dict[str, Any]) -> tuple[Decoding, Prompt, int]:
        """How to decode, the prompts of both branches, and the number of passages given."""
        names = [field.name for field in fields(Decoding)]
        if unknown := settings.keys() - set(names):
            raise InputError(f"{min(unknown)} is no setting; those are {', '.join(names)}")
        own = {name: getattr(self, name) for name in names}
        if "alpha" in settings:
            own["reliance"] = None  # this call sets the dial otherwise
        how = Decoding(**{**own, **settings})
        if how.reliance is not None:
            how = replace(how, alpha=self._calibration.alpha(how.reliance), reliance=None)
        model = self._language_model
        room = model.room(how.max_new_tokens)
        question, passages = read_back(prompt) or (prompt, [])
        built = prompts.build(model.tokenizer, question, passages, room)
        if dropped := len(passages) - built.passages:
            log.warning("%d of %d passages did not fit into the window", dropped, len(passages))
        return how, built, len(passages)


def _conversation(messages: Sequence[ChatMessage]) -> str:
    """One user message as it stands, a longer conversation as a transcript."""
    if len(messages) == 1 and messages[0].role == MessageRole.USER:
        return messages[0].content or ""
    return messages_to_prompt(messages)


def _response(
    text: str,
    delta: str | None,
    tokens: list[dict[str, Any]],
    built: Prompt,
    given: int,
    settled: Settled | None,
) -> CompletionResponse:
    raw = {
        "tokens": list(tokens),
        "conflict": settled.conflict if settled else None,
        "verdict": asdict(settled.verdict) if settled and settled.verdict else None,
        "passages_given": given,
        "passages_read": built.passages,
    }
    return CompletionResponse(text=text, delta=delta, raw=raw)


class _Abandoned(Exception):  # noqa: N818 # nothing is wrong: nobody listens any more
    """Ends the decoding of an answer whose reader has gone."""


def _streamed(
    model: LanguageModel, prompt: Prompt, how: Decoding, calibration: Calibration
) -> Iterator[TokenTrace | Settled]:
    """The tokens of an answer as they come, then how it was settled.

    Decoding runs in a thread of its own, since it hands tokens to a callback and LlamaIndex draws
    them from a generator. A reader who stops early ends it at its next token.
    """
    arrived: queue.SimpleQueue[TokenTrace | Settled | BaseException] = queue.SimpleQueue()
    abandoned = threading.Event()

    def hand_over(_index: int, token: TokenTrace) -> None:
        if abandoned.is_set():
            raise _Abandoned
        arrived.put(token)

    def decode() -> None:
        try:
            [settled] = dial.answer(model, [prompt], how, calibration, on_token=hand_over)
            arrived.put(settled)
        except BaseException as error:  # raised where the tokens are read
            arrived.put(error)

    thread = threading.Thread(target=decode, name="fulcrum-stream", daemon=True)
    thread.start()
    try:
        while isinstance(item := arrived.get(), TokenTrace):
            yield item
        if isinstance(item, BaseException):
            raise item
        yield item
    finally:
        abandoned.set()
        thread.join()
