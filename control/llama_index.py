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
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
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
from llama_index.core.schema import NodeWithScore, TextNode

from control.answer import Answer
from control.assistant import Assistant
from control.conflict import calibration as calibrations
from control.conflict.calibration import Calibration
from control.decoding.generate import Alpha, Decoding
from control.decoding.trace import TokenTrace
from control.engines.base import Engine
from control.forgetting.suppressor import FactSuppressor
from control.state import Query
from foundation.errors import InputError
from foundation.threads import BackgroundThread

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
"""For ``text_qa_template``. ``context_str`` is a list of passages, or text with blank lines between
them; ``query_str`` is the question."""


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

    The settings are those of `control.decoding.generate.Decoding`; each may also be given to one
    call, as in ``llm.complete(prompt, alpha=1.0)``. ``calibration`` is the model's; by default the
    one that comes with Fulcrum. A response's ``raw`` is a dictionary:

    - ``tokens``: the trace of each token, as in `control.decoding.trace.TokenTrace`;
    - ``conflict``: whether passages and memory disagree; ``None`` until the answer is whole;
    - ``verdict``: what passages and memory claim then, as in `control.conflict.verdict.Verdict`;
      ``None`` where they do not disagree, and from token rules;
    - ``passages_given``, ``passages_read``: those in the prompt, and those that the window held;
      ``None`` until the answer is whole.
    - ``forgotten``: the forgotten facts withheld, as in `control.answer.Answer`.

    While streaming, ``text`` and ``raw`` grow and ``delta`` is what one token added.
    """

    rule: str = Field(description="a name in control.decoding.rules.CHOICES")
    alpha: Alpha = Field(description="0 = passages only, 0.5 = plain RAG, 1 = memory only, or auto")
    temperature: float = Field(description="0 is greedy; above it, sampling")
    top_p: float = Field(description="share of probability that sampling keeps")
    seed: int = Field(description="of the sampling")
    max_new_tokens: int = Field(description="longest answer, in tokens")
    reliance: float | None = Field(
        default=None, description="in place of alpha: share of known conflicts for memory"
    )
    rule_options: dict[str, float | str] = Field(
        default_factory=dict, description="options of the rule, by name"
    )
    _assistant: Assistant = PrivateAttr()

    def __init__(
        self,
        language_model: Engine,
        rule: str = Decoding.rule,
        alpha: Alpha = Decoding.alpha,
        temperature: float = Decoding.temperature,
        top_p: float = Decoding.top_p,
        seed: int = Decoding.seed,
        max_new_tokens: int = Decoding.max_new_tokens,
        reliance: float | None = Decoding.reliance,
        rule_options: Mapping[str, float | str] | None = None,
        calibration: Calibration | None = None,
        forgetting: FactSuppressor | None = None,
    ) -> None:
        decoding = Decoding(
            rule, alpha, temperature, top_p, seed, max_new_tokens, reliance, rule_options or {}
        )
        super().__init__(**asdict(decoding), messages_to_prompt=_conversation)
        self._assistant = Assistant(
            language_model,
            calibration or calibrations.shipped(language_model),
            forgetting=forgetting or FactSuppressor(),
            longest_question=sys.maxsize,  # what LlamaIndex asks may hold passages
        )

    @classmethod
    def class_name(cls) -> str:
        """The class's name in LlamaIndex's records."""
        return "fulcrum_llm"

    @property
    def metadata(self) -> LLMMetadata:
        """The window, to which LlamaIndex fits its prompts, and the model's name."""
        return LLMMetadata(
            context_window=self._assistant.model.window,
            num_output=self.max_new_tokens,
            model_name=self._assistant.model.name,
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
        decoding, query = self._decoding(settings), _query(prompt)
        [answer] = self._assistant.ask_batch([query], decoding)
        return _response(answer.answer, None, answer.tokens, query, answer)

    @llm_completion_callback()
    def stream_complete(
        self, prompt: str, formatted: bool = False, **settings: Any
    ) -> CompletionResponseGen:
        """Answer a prompt token by token; arguments and errors as for `complete`."""
        decoding, query = self._decoding(settings), _query(prompt)

        def responses() -> CompletionResponseGen:
            text, tokens = "", list[TokenTrace]()
            for item in _streamed(self._assistant, query, decoding):
                if isinstance(item, TokenTrace):
                    tokens.append(item)
                    delta = item.text if text else item.text.lstrip()
                    text += delta
                    yield _response(text, delta, tokens, query, None)
                    continue
                refused = "" if item.tokens else item.answer
                delta = f"\n\n{refused}" if text and refused else refused
                yield _response(text + delta, delta, item.tokens, query, item)

        return responses()

    def _decoding(self, settings: dict[str, Any]) -> Decoding:
        names = [field.name for field in fields(Decoding)]
        if unknown := settings.keys() - set(names):
            raise InputError(f"{min(unknown)} is no setting; those are {', '.join(names)}")
        own = {name: getattr(self, name) for name in names}
        if "alpha" in settings:
            own["reliance"] = None  # this call sets the dial otherwise
        if "rule" in settings:
            own["rule_options"] = {}  # they are of another rule
        return Decoding(**{**own, **settings})


def _query(prompt: str) -> Query:
    question, passages = read_back(prompt) or (prompt, [])
    nodes = [
        NodeWithScore(node=TextNode(id_=str(place), text=passage))
        for place, passage in enumerate(passages)
    ]
    return Query(question, nodes)


def _conversation(messages: Sequence[ChatMessage]) -> str:
    """One user message unchanged, a longer conversation as a transcript."""
    if len(messages) == 1 and messages[0].role == MessageRole.USER:
        return messages[0].content or ""
    return messages_to_prompt(messages)


def _response(
    text: str, delta: str | None, tokens: Sequence[TokenTrace], query: Query, answer: Answer | None
) -> CompletionResponse:
    given = len(query.given or ())
    read = None if answer is None else sum(source.kept for source in answer.sources)
    if answer is not None and answer.tokens and read != given:
        log.warning("%d of %d passages did not fit into the window", given - (read or 0), given)
    raw = {
        "tokens": [asdict(token) for token in tokens],
        "conflict": answer.conflict if answer else None,
        "verdict": asdict(answer.verdict) if answer and answer.verdict else None,
        "passages_given": given,
        "passages_read": read,
        "forgotten": answer.forgotten if answer else [],
    }
    return CompletionResponse(text=text, delta=delta, raw=raw)


class _Abandoned(Exception):  # noqa: N818 # nothing is wrong: the answer is not wanted any more
    """Ends the decoding of an answer whose generator was closed."""


def _streamed(
    assistant: Assistant, query: Query, decoding: Decoding
) -> Iterator[TokenTrace | Answer]:
    """The tokens of an answer as they come, then the answer.

    Decoding runs in a thread of its own, since it hands tokens to a callback and LlamaIndex takes
    them from a generator. Closing the generator ends it at its next token.
    """
    arrived: queue.SimpleQueue[TokenTrace | Answer | BaseException] = queue.SimpleQueue()
    abandoned = threading.Event()

    def hand_over(_index: int, token: TokenTrace) -> None:
        if abandoned.is_set():
            raise _Abandoned
        arrived.put(token)

    def decode() -> None:
        try:
            [answer] = assistant.ask_batch([query], decoding, hand_over)
            arrived.put(answer)
        except BaseException as error:  # raised where the tokens are read
            arrived.put(error)

    thread = BackgroundThread(decode, "fulcrum-stream", abandoned.set)
    try:
        while isinstance(item := arrived.get(), TokenTrace):
            yield item
        if isinstance(item, BaseException):
            raise item
        yield item
    finally:
        abandoned.set()
        thread.join()
