"""Requests to the API: OpenAI's fields, where they have a meaning here, and the dial."""

import json
import re
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from control import json_text
from control.conflict.sources import DATE, Policy, SourceOptions
from control.decoding.rules import CHOICES, DEFAULT_RULE
from control.engines.json_grammar import check_schema
from control.json_text import ANY_OBJECT
from foundation.errors import InputError

MOST_MESSAGES = 200
MOST_DOCUMENTS = 100  # handed over with one question
MOST_PROMPTS = 16  # answered as one batch
MOST_TEXTS = 256  # embedded at once
LONGEST_TEXT = 200_000  # characters; what the body may hold is less for most of them
MOST_STOPS = 16  # OpenAI takes 4; evaluation programs send more
MOST_LOGPROBS = 20  # as OpenAI; three are kept of each token of an answer
LONGEST_DATE = 32  # characters; one in ISO 8601 has 10
LARGEST_SEED = 2**63 - 1
LARGEST_TOKEN = 2**31 - 1  # far beyond any vocabulary
MOST_IGNORED = 20  # names of ignored fields that the response header holds
UNSUPPORTED = "unsupported_value"  # OpenAI's code where a model lacks what a field asks for
INSTRUCTING = ("system", "developer")  # roles
FIELD_NAME = re.compile(r"[A-Za-z0-9_.-]{1,60}")  # what may stand in a header

Text = Annotated[str, Field(max_length=LONGEST_TEXT)]
Words = Annotated[str, Field(min_length=1, max_length=LONGEST_TEXT)]
Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
Share = Annotated[float, Field(ge=0, le=1)]
Token = Annotated[int, Field(ge=0, le=LARGEST_TOKEN)]
Tokens = Annotated[list[Token], Field(min_length=1, max_length=LONGEST_TEXT)]
Prompts = Annotated[list[Words], Field(min_length=1, max_length=MOST_PROMPTS)]
TokenPrompts = Annotated[list[Tokens], Field(min_length=1, max_length=MOST_PROMPTS)]


def _only(
    accepts: Callable[[Any], bool],
    message: str,
    validator: type[AfterValidator | BeforeValidator] = AfterValidator,
) -> AfterValidator | BeforeValidator:
    """Refuse values that ask for what cannot be done, with OpenAI's code for it.

    Args:
        accepts: Whether a value can be done.
        message: What is said of others.
        validator: Whether to look after the type is checked or before.
    """

    def check(value: Any) -> Any:
        if value is not None and not accepts(value):
            raise PydanticCustomError(UNSUPPORTED, "{message}", {"message": message})
        return value

    return validator(check)


def _check_date(value: str) -> str:
    try:
        SourceOptions(as_of=value)
    except InputError as error:
        advice = str(error).rpartition("; ")[2]
        raise ValueError(f"{value!r} is no date; {advice}") from error
    return value


Date = Annotated[
    str,
    Field(min_length=1, max_length=LONGEST_DATE),
    AfterValidator(_check_date),
    WithJsonSchema({"type": "string", "pattern": f"^{DATE.pattern}$"}),
]
Penalty = Annotated[float, _only(lambda value: value == 0, "only 0 is supported")]
FORMATS = ("text", "json_object", "json_schema")
FormatType = Annotated[
    Text, _only(lambda kind: kind in FORMATS, f"only {', '.join(FORMATS)} are supported")
]
PartType = Annotated[
    Text, _only(lambda kind: kind in ("text", "refusal"), "only text is read, no images or sound")
]
NO_TOOLS = "no tools are called here, so only none and auto are supported"
NoFunction = Annotated[Text | dict[str, Any], _only(lambda how: how in ("none", "auto"), NO_TOOLS)]
HOW_TOOLS = 'only none, auto, required and {"type": "function", ...} are supported'
Choosing = Annotated[
    Text | dict[str, Any],
    _only(
        lambda how: (
            how in ("none", "auto", "required")
            or (isinstance(how, dict) and how.get("type") == "function")
        ),
        HOW_TOOLS,
    ),
]


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or all(isinstance(part, str) for part in value)


class StrictBody(BaseModel):
    """A request body whose unknown fields are errors."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class RequestBody(BaseModel):
    """A request body in OpenAI's form; unknown fields are ignored, and `ignored` names them."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    def ignored(self) -> list[str]:
        """The fields that were sent and have no effect, such as ``messages.name``."""
        names = dict.fromkeys(self._without_effect())
        return [name for name in names if FIELD_NAME.fullmatch(name)][:MOST_IGNORED]

    def _without_effect(self) -> Iterator[str]:
        yield from (name for name, value in (self.model_extra or {}).items() if value is not None)
        for name in type(self).model_fields:
            value = getattr(self, name)
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, RequestBody):
                    yield from (f"{name}.{inner}" for inner in part._without_effect())


class Part(RequestBody):
    """A part of a message; the model reads text alone."""

    type: PartType
    text: Text | None = None
    refusal: Text | None = None


class Message(RequestBody):
    """A message of a conversation."""

    role: Annotated[
        Literal["system", "developer", "user", "assistant", "tool"],
        _only(
            lambda role: role != "function",
            "function is an older form; send tool, with tool_calls before it",
            BeforeValidator,
        ),
    ]
    content: Text | list[Part] | None = None
    refusal: Text | None = None
    tool_call_id: Text | None = Field(None, description="The call that a tool's result is for.")
    tool_calls: list[dict[str, Any]] | None = Field(
        None, description="Of the assistant, whose message is then no answer."
    )

    @property
    def is_said(self) -> bool:
        """Whether the user or the assistant says it to the other."""
        return self.role == "user" or (self.role == "assistant" and not self.tool_calls)

    @property
    def text(self) -> str:
        """What it says."""
        if isinstance(self.content, list):
            return "\n".join(part.text or part.refusal or "" for part in self.content)
        return self.content or self.refusal or ""


class GivenPassage(RequestBody):
    """A text to read instead of the index."""

    text: Words
    title: Text = ""
    trust: Share | None = Field(None, description="How far it is trusted.")
    date: Date | None = Field(None, description="Since when it holds, such as 2024-06-30 or 2024.")


class StreamOptions(RequestBody):
    """Options of a stream."""

    include_usage: bool | None = False


class JsonSchema(RequestBody):
    """A schema that an answer follows, and its name."""

    name: Name
    description: Text | None = None
    strict: bool | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")

    @field_validator("schema_")
    @classmethod
    def _followed(cls, schema: dict[str, Any] | None) -> dict[str, Any] | None:
        try:
            check_schema(json.dumps(schema or {}))
        except InputError as error:
            raise PydanticCustomError(UNSUPPORTED, "{line}", {"line": str(error)}) from error
        return schema


class ResponseFormat(RequestBody):
    """The format of an answer: text, any JSON object, or JSON by a schema."""

    type: FormatType
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _whole(self) -> "ResponseFormat":
        if self.type == "json_schema" and self.json_schema is None:
            raise ValueError("json_schema: give the schema, with a name")
        return self

    @property
    def schema_text(self) -> str:
        """The schema, as JSON; empty for text."""
        if self.type == "text":
            return ""
        given = self.json_schema if self.type == "json_schema" else None
        if given is None or given.schema_ is None:
            return ANY_OBJECT
        return _described(given.description, given.schema_)


def _described(description: str | None, schema: dict[str, Any]) -> str:
    """A schema as JSON, with what its caller says of it."""
    return json.dumps(({"description": description} if description else {}) | schema)


class Function(RequestBody):
    """A function that the caller offers."""

    name: Name
    description: Text | None = None
    strict: bool | None = None
    parameters: dict[str, Any] | None = None


class Tool(RequestBody):
    """A tool that the caller offers; only functions."""

    type: Annotated[Text, _only(lambda kind: kind == "function", "only function is supported")]
    function: Function


class DecodingRequest(RequestBody):
    """The fields that chat and plain completions share."""

    model: Words = Field(description="A name that /v1/models lists.")
    alpha: Share | Literal["auto"] | None = Field(
        None, description="The dial: 0 = passages, 0.5 = both, 1 = memory, auto."
    )
    reliance: Share | None = Field(
        None,
        description="Instead of alpha: the share of conflicts over known facts that memory should "
        "settle.",
    )
    rule: Literal[CHOICES] = Field(DEFAULT_RULE, description="How to decode.")  # type: ignore[valid-type]
    only_documents: bool | None = Field(
        None, description="Answer only what a document claims, and nothing from memory."
    )
    policy: Policy | None = Field(
        None, description="Which documents to follow where they disagree; all tells every claim."
    )
    as_of: Date | None = Field(
        None, description="Follow no document of a later date, such as 2024-06-30 or 2024."
    )
    documents: Annotated[list[GivenPassage], Field(max_length=MOST_DOCUMENTS)] | None = Field(
        None, description="Passages to read instead of the index; an empty list asks memory alone."
    )
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Share | None = None
    seed: Annotated[int, Field(ge=-LARGEST_SEED, le=LARGEST_SEED)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: Words | Annotated[list[Words], Field(max_length=MOST_STOPS)] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MOST_PROMPTS)] | None = Field(
        None, description="Answers to each question; they differ where the temperature is above 0."
    )
    presence_penalty: Penalty | None = Field(None, description="Only 0.")
    frequency_penalty: Penalty | None = Field(None, description="Only 0.")
    logit_bias: (
        Annotated[dict[str, float], _only(lambda bias: not bias, "only an empty one is supported")]
        | None
    ) = Field(None, description="Only an empty one.")

    @model_validator(mode="after")
    def _consistent(self) -> "DecodingRequest":
        if self.alpha is not None and self.reliance is not None:
            raise ValueError("alpha and reliance both set the dial; give one of them")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options are for a stream; set stream to true")
        return self

    @property
    def sources(self) -> SourceOptions:
        """How what the sources claim is settled."""
        return SourceOptions(self.policy, self.as_of or "", self.only_documents)

    @property
    def copies(self) -> int:
        """How many answers each question gets."""
        return self.n or 1

    @property
    def stops(self) -> list[str]:
        """The stop sequences."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())


class ChatRequest(DecodingRequest):
    """The body of /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MOST_MESSAGES)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = False
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = Field(
        None, description="Of each token; the three most probable are kept."
    )
    response_format: ResponseFormat | None = None
    modalities: (
        Annotated[list[Text], _only(lambda kinds: kinds == ["text"], "only text is supported")]
        | None
    ) = None
    tools: list[dict[str, Any]] | None = Field(
        None, description="Read where one must be called; its arguments are then the answer."
    )
    tool_choice: Choosing | None = None
    function_call: NoFunction | None = Field(None, description="Only none and auto.")

    @model_validator(mode="after")
    def _askable(self) -> "ChatRequest":
        said = [each for each in self.messages if each.is_said]
        if not said or said[-1].role != "user":
            raise ValueError(
                "messages: the last one must be the user's, since it is the question, or what "
                "tools have found for it"
            )
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        if self.json_schema and self.logprobs:
            raise ValueError("logprobs: given of texts alone, not of JSON or a tool's arguments")
        return self

    def _without_effect(self) -> Iterator[str]:
        yield from super()._without_effect()
        if self.tools is not None and self.called is None:
            yield "tools"

    @cached_property
    def called(self) -> Function | None:
        """The function that must be called."""
        if self.tool_choice in (None, "none", "auto"):
            return None
        try:
            offered = [Tool.model_validate(each).function for each in self.tools or ()]
        except ValidationError as error:
            [first, *_] = error.errors()
            where = ".".join(map(str, first["loc"]))
            raise ValueError(f"tools: {where}: {first['msg']}") from error
        if self.tool_choice == "required":
            if len(offered) != 1:
                raise ValueError(
                    f"tool_choice: required with {len(offered)} tools; name the function to call"
                )
            return offered[0]
        chosen = self.tool_choice.get("function") if isinstance(self.tool_choice, dict) else None
        wanted = chosen.get("name") if isinstance(chosen, dict) else None
        named = [each for each in offered if each.name == wanted]
        if not named:
            raise ValueError(f"tool_choice: tools have no function {wanted!r}")
        return named[0]

    @property
    def json_schema(self) -> str:
        """The JSON Schema that the answer follows; empty for text."""
        if (called := self.called) is not None:
            return _described(called.description, called.parameters or {"type": "object"})
        return self.response_format.schema_text if self.response_format else ""

    @property
    def passages(self) -> list[GivenPassage] | None:
        """What to read instead of the index: the documents, and what tools found for the question.

        ``None`` where there is neither.
        """
        found = _found_by_tools(self.messages[self._asked_at :])
        return [*(self.documents or ()), *found] if found else self.documents

    @property
    def found_earlier(self) -> list[GivenPassage]:
        """What tools found for earlier questions, which the last one may still be about."""
        return _found_by_tools(self.messages[: self._asked_at])

    @property
    def _asked_at(self) -> int:
        """The place of the user's last message."""
        return max(at for at, each in enumerate(self.messages) if each.role == "user")

    @property
    def system(self) -> str:
        """The instructions of its system messages."""
        parts = [each.text for each in self.messages if each.role in INSTRUCTING]
        return "\n\n".join(filter(None, parts))


def _found_by_tools(messages: list[Message]) -> list[GivenPassage]:
    texts = [json_text.rows(each.text) for each in messages if each.role == "tool"]
    return [GivenPassage(text=text, trust=None, date=None) for text in texts if text.strip()]


class CompletionRequest(DecodingRequest):
    """The body of /v1/completions."""

    prompt: Words | Prompts | Tokens | TokenPrompts = Field(
        description="A question, or several, which are answered in one batch; as texts or as the "
        "ids of the model's tokens."
    )
    max_tokens: Annotated[int, Field(ge=0)] | None = Field(
        None, description="0 only with echo and logprobs."
    )
    logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    echo: bool | None = Field(
        False,
        description="Begin with the prompt. With logprobs and max_tokens 0 or 1, its tokens are "
        "scored by the model alone.",
    )
    best_of: Annotated[int, Field(ge=1)] | None = Field(None, description="Only the same as n.")
    suffix: Annotated[Text, _only(lambda text: not text, "no text is filled in")] | None = None

    @model_validator(mode="after")
    def _answerable(self) -> "CompletionRequest":
        if self.best_of is not None and self.best_of != self.copies:
            raise ValueError("best_of: only the same as n is supported")
        if len(self.prompts) * self.copies > MOST_PROMPTS:
            raise ValueError(f"n: at most {MOST_PROMPTS} answers are given at once")
        if not self.scores:
            if self.max_tokens == 0:
                raise ValueError("max_tokens: 0 is for scoring a prompt, with echo and logprobs")
            return self
        if self.max_tokens not in (0, 1):
            raise ValueError("max_tokens: echo with logprobs scores the prompt; give 0 or 1")
        if self.documents or self.copies > 1:
            field = "documents" if self.documents else "n"
            raise ValueError(f"{field}: echo with logprobs scores the prompt by the model alone")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts, as texts or as ids of tokens."""
        first = self.prompt[0]
        if isinstance(self.prompt, str) or isinstance(first, int):
            return [self.prompt]  # type: ignore[list-item]
        return list(self.prompt)  # type: ignore[arg-type]

    @property
    def scores(self) -> bool:
        """Whether the prompts are scored and not answered."""
        return bool(self.echo) and self.logprobs is not None


class EmbeddingRequest(RequestBody):
    """The body of /v1/embeddings."""

    model: Words
    input: Annotated[
        Words
        | Annotated[list[Words], Field(min_length=1, max_length=MOST_TEXTS)]
        | Annotated[list[int] | list[list[int]], Field(min_length=1)],
        _only(_is_text, "only texts are embedded; ids of tokens mean others to each model"),
    ]
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Only the number that the model has."
    )

    @property
    def texts(self) -> list[str]:
        """What to embed."""
        return [self.input] if isinstance(self.input, str) else list(map(str, self.input))


Texts = Annotated[list[Words], Field(max_length=200)]


class ForgetBody(StrictBody):
    """A fact to be forgotten: a sentence, or at least a subject."""

    sentence: Words | None = Field(None, description="As in: Forget that Lima is ...")
    subject: Words | None = None
    aliases: Texts | None = None
    relation: Text | None = None
    questions: Texts | None = None
    answers: Texts | None = None
    answer_aliases: Texts | None = None
    scope: Literal["fact", "claim", "subject", "verbatim"] | None = None
    reason: Text | None = None
    who: Text | None = None
    dry_run: bool = Field(False, description="Show what would be recorded, and record nothing.")

    @model_validator(mode="after")
    def _about_something(self) -> "ForgetBody":
        if self.sentence is None and self.subject is None:
            raise ValueError("give a sentence, or a subject with relation and answers")
        return self

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of a record that are given."""
        given = self.model_dump(exclude={"sentence", "dry_run"}, exclude_none=True)
        return {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in given.items()
        }


class CorrectionBody(StrictBody):
    """A correction to be pinned."""

    statement: Text = Field(description="What holds, as in: The refund window is 30 days")
    source: Text = Field("", description="Where that is from; shown with every answer.")
    who: Text = ""
    scope: Text = Field("", description="The subject that it is about; shown only.")
    replace: list[Text] = Field([], description="Ids of the corrections to withdraw for it.")
