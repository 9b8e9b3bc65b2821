"""The engine protocol: what turns prompts into tokens and scores, wherever the model runs.

The dial (`control.conflict.text_dial`) needs two operations: to generate text with the
log-probability of each token, and to score a given continuation. An engine says in its
`Capabilities` which of them it has; `notices` says what changes where one is missing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypedDict, runtime_checkable

from foundation.errors import InputError

CANDIDATES = 3  # of each token, kept with it
MOST_BANS = 12  # tokens banned at one place before the answer is ended


class Message(TypedDict):
    """One message of a chat; ``role`` is ``system``, ``user`` or ``assistant``."""

    role: str
    content: str


@dataclass(frozen=True)
class Capabilities:
    """What an engine can do, found out by requests when it is opened.

    Attributes:
        log_probabilities: Of the tokens that it generates.
        scores: Log-probabilities of a given continuation.
        bans: Tokens can be banned for one request.
        prefix: It continues a given beginning of an answer.
        plain_text: It continues text outside the chat template.
    """

    log_probabilities: bool = True
    scores: bool = True
    bans: bool = True
    prefix: bool = True
    plain_text: bool = True


NO_SCORES = (
    "{model}'s server scores no given text, so the dial judges by the log-probabilities of what "
    "memory and passages answered"
)
NO_LOG_PROBABILITIES = (
    "{model}'s server gives no log-probabilities, so a verdict has no confidence and the dial has "
    "three settings: 0, 0.5 and 1"
)
NO_BANS = (
    "{model}'s server bans no tokens, so an answer without support in the passages is asked for "
    "again with an instruction to keep to them"
)


@dataclass(frozen=True)
class EnginePrompt:
    """What an engine continues.

    Attributes:
        text: The prompt in the model's chat template; empty where the engine keeps its template to
            itself.
        messages: The same as a chat; empty for text outside a chat.
    """

    text: str
    messages: tuple[Message, ...] = ()


@dataclass(frozen=True)
class Candidate:
    """A candidate for the next token and its log-probability, in nats."""

    text: str
    log_p: float


@dataclass(frozen=True)
class Token:
    """A token of an answer.

    Attributes:
        text: What it adds to the answer; empty while a character is still incomplete.
        id: Its id; ``None`` where the engine tells no ids.
        log_p: Its log-probability, in nats; ``None`` where it is not known.
        candidates: The most probable tokens in its place, best first.
    """

    text: str
    id: int | None = None
    log_p: float | None = None
    candidates: tuple[Candidate, ...] = ()


@dataclass(frozen=True)
class GenerationRequest:
    """A text to be continued.

    Attributes:
        prompt: What comes before the answer.
        prefix: The answer's first tokens, given.
        max_new_tokens: Longest continuation, the prefix left out.
        temperature: 0 is greedy.
        top_p: Share of probability that sampling keeps.
        seed: Of the sampling.
        banned: Ids of tokens that are not allowed.
        json_schema: JSON Schema that the text follows, without a prefix; empty for any text.
        ended: Called with the answer so far, the prefix included; true ends it.
        withholds: Called with the answer so far and the text of the next token; the id of the
            forgotten fact that it would complete, or ``None``. Such a token is not chosen.
        refuses: Whether an answer that was about to state this fact is ended at once.
    """

    prompt: EnginePrompt
    prefix: tuple[Token, ...] = ()
    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    banned: tuple[int, ...] = ()
    json_schema: str = ""
    ended: Callable[[str], bool] = lambda _: False
    withholds: Callable[[str, str], str | None] | None = None
    refuses: Callable[[str], bool] = lambda _: False


@dataclass
class Generation:
    """A continuation.

    Attributes:
        tokens: Its tokens; the end of text is left out.
        finished: Whether it has ended by itself, and not by ``ended`` or its length.
        withheld: Ids of the forgotten facts that it was about to state.
        blocked: Whether it was ended because of them.
    """

    tokens: list[Token] = field(default_factory=list)
    finished: bool = False
    withheld: list[str] = field(default_factory=list)
    blocked: bool = False

    @property
    def text(self) -> str:
        """The text of its tokens."""
        return text(self.tokens)


@dataclass(frozen=True)
class ScoreRequest:
    """Tokens whose log-probabilities are wanted.

    Attributes:
        prompt: What comes before the answer.
        prefix: The answer's first tokens, not scored.
        continuation: The tokens to score, at least one.
    """

    prompt: EnginePrompt
    prefix: tuple[Token, ...]
    continuation: tuple[Token, ...]


OnGenerated = Callable[[int, Token], None]
"""Called with the place of the request and its new token."""


@runtime_checkable
class Engine(Protocol):
    """A language model that generates and scores text."""

    @property
    def name(self) -> str:
        """In reports and notices."""

    @property
    def identity(self) -> str:
        """Distinguishes it from other models, for its calibration."""

    @property
    def window(self) -> int:
        """Longest prompt plus answer, in tokens."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""

    def room(self, max_new_tokens: int) -> int:
        """Longest prompt, in tokens, that leaves the window room for such an answer.

        Raises:
            InputError: The answer alone fills the window.
        """

    def without_markup(self, text: str) -> str:
        """A text without control tokens, by which a document could pose as the user."""

    def render(self, messages: Sequence[Message]) -> str:
        """The messages in the chat template, up to where the answer begins; empty if unknown."""

    def length(self, text: str) -> int:
        """How many tokens a text has; an estimate from above where the engine does not tell."""

    def tokens(self, texts: Sequence[str]) -> list[tuple[Token, ...]]:
        """The tokens of each text, outside any template; empty where the engine tells no ids."""

    def generate(
        self, requests: Sequence[GenerationRequest], on_token: OnGenerated | None = None
    ) -> list[Generation]:
        """Continue texts, all at once.

        Raises:
            ModelError: The model or its server failed; none of the answers counts.
        """

    def score(self, requests: Sequence[ScoreRequest]) -> list[list[float]]:
        """Log-probabilities of each token of each continuation, in nats; errors as `generate`."""


def text(tokens: Sequence[Token]) -> str:
    """The text of tokens."""
    return "".join(token.text for token in tokens)


def notices(engine: Engine) -> list[str]:
    """What the user should know of what the engine cannot do, one sentence each."""
    can = engine.capabilities
    missing = []
    if not can.log_probabilities:
        missing.append(NO_LOG_PROBABILITIES)
    elif not can.scores:
        missing.append(NO_SCORES)
    if not can.bans:
        missing.append(NO_BANS)
    return [each.format(model=engine.name) for each in missing]


def room(name: str, window: int, max_new_tokens: int) -> int:
    """Longest prompt, in tokens, that leaves the window room for such an answer.

    Raises:
        InputError: The answer alone fills the window.
    """
    if max_new_tokens >= window:
        raise InputError(
            f"max_new_tokens is {max_new_tokens:,}, but the window of {name} "
            f"is {window:,} tokens; give fewer"
        )
    return window - max_new_tokens
