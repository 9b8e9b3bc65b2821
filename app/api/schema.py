"""Requests to the API: OpenAI's fields, where they have a meaning here, and the dial."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from control.decoding.rules import CHOICES, DEFAULT_RULE

MOST_MESSAGES = 200
MOST_DOCUMENTS = 100  # handed over with one question
MOST_PROMPTS = 16  # answered as one batch
MOST_TEXTS = 256  # embedded at once
LONGEST_TEXT = 200_000  # characters; what the body may hold is less for most of them
MOST_STOPS = 4  # as OpenAI
MOST_LOGPROBS = 20  # as OpenAI; three are kept of each token
LARGEST_SEED = 2**63 - 1

Text = Annotated[str, Field(max_length=LONGEST_TEXT)]
Words = Annotated[str, Field(min_length=1, max_length=LONGEST_TEXT)]
Share = Annotated[float, Field(ge=0, le=1)]
Nothing = Annotated[list[Any], Field(max_length=0)]


class RequestBody(BaseModel):
    """A request body; unknown fields are errors."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class Part(RequestBody):
    """A part of a message; the model reads text alone."""

    type: Literal["text"]
    text: Text


class Message(RequestBody):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[Part] | None = None
    name: Text | None = None
    refusal: Text | None = None

    @property
    def text(self) -> str:
        """What it says."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class GivenPassage(RequestBody):
    """A text to read instead of the index."""

    text: Words
    title: Text = ""
    trust: Share | None = Field(None, description="How far it is trusted against memory.")


class StreamOptions(RequestBody):
    """Options of a stream."""

    include_usage: bool = False
    include_obfuscation: bool = False


class ResponseFormat(RequestBody):
    """The format of an answer; only text."""

    type: Literal["text"]


class DecodingRequest(RequestBody):
    """The fields that chat and plain completions share."""

    model: Words = Field(description="A name that /v1/models lists.")
    alpha: Share | Literal["auto"] | None = Field(
        None, description="The dial: 0 = passages, 0.5 = plain RAG, 1 = memory, auto."
    )
    reliance: Share | None = Field(
        None,
        description="Instead of alpha: the share of conflicts over known facts that memory should "
        "settle.",
    )
    rule: Literal[CHOICES] = Field(DEFAULT_RULE, description="How to decode.")  # type: ignore[valid-type]
    documents: Annotated[list[GivenPassage], Field(max_length=MOST_DOCUMENTS)] | None = Field(
        None, description="Passages to read instead of the index; an empty list asks memory alone."
    )
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: Words | Annotated[list[Words], Field(max_length=MOST_STOPS)] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = 1
    presence_penalty: Literal[0] | None = Field(None, description="Only 0.")
    frequency_penalty: Literal[0] | None = Field(None, description="Only 0.")
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = Field(
        None, description="Only an empty one."
    )
    user: Text | None = Field(None, description="Not read.")

    @model_validator(mode="after")
    def _consistent(self) -> "DecodingRequest":
        if self.alpha is not None and self.reliance is not None:
            raise ValueError("alpha and reliance both set the dial; give one of them")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options are for a stream; set stream to true")
        return self

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
    tools: Nothing | None = Field(None, description="Only an empty list.")
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    metadata: dict[str, Text] | None = Field(None, description="Not read.")
    store: Literal[False] | None = Field(None, description="Nothing is stored.")
    service_tier: Literal["auto", "default"] | None = None

    @model_validator(mode="after")
    def _askable(self) -> "ChatRequest":
        if self.messages[-1].role != "user":
            raise ValueError("messages: the last one must be the user's, since it is the question")
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        return self


class CompletionRequest(DecodingRequest):
    """The body of /v1/completions."""

    prompt: Words | Annotated[list[Words], Field(min_length=1, max_length=MOST_PROMPTS)] = Field(
        description="A question, or several, which are answered in one batch."
    )
    logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    echo: Literal[False] | None = False
    best_of: Literal[1] | None = None
    suffix: None = None

    @property
    def questions(self) -> list[str]:
        """The prompts."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt


class EmbeddingRequest(RequestBody):
    """The body of /v1/embeddings."""

    model: Words
    input: Words | Annotated[list[Words], Field(min_length=1, max_length=MOST_TEXTS)]
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Only the number that the model has."
    )
    user: Text | None = Field(None, description="Not read.")


Texts = Annotated[list[Words], Field(max_length=200)]


class ForgetBody(RequestBody):
    """A fact to be forgotten: a sentence, or at least a subject."""

    sentence: Words | None = Field(None, description="As in: Forget that Lima is ...")
    subject: Words | None = None
    aliases: Texts | None = None
    relation: Text | None = None
    questions: Texts | None = None
    answers: Texts | None = None
    answer_aliases: Texts | None = None
    scope: Literal["fact", "claim", "subject"] | None = None
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
