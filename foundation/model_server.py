"""Requests to OpenAI-compatible servers: which are repeated, and what their errors mean."""

from collections.abc import Sequence
from typing import Any

import httpx
import openai
from tenacity import (
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential_jitter,
)

from foundation.addresses import EXAMPLE, check_address
from foundation.errors import ModelError

ATTEMPTS = 5
FIRST_WAIT, LONGEST_WAIT = 0.5, 8.0  # seconds between two attempts: 0.5, 1, 2, 4 and a little
LONGEST_ASKED = 60.0  # seconds: a server that asks for a longer pause is not waited for
CONNECT_SECONDS = 5.0
PASSING = (408, 429, 500, 502, 503, 504)  # statuses after which the same request may succeed
BUSY = (408, 429, 502, 503, 504)  # those that say nothing of the request
REFUSED = (400, 413, 422)  # statuses that say it is too long, or holds what is not known
LONGEST_REASON = 160  # characters of a server's own words
SHOWN_MODELS = 10


def client_settings(
    option: str, address: str, key: str | None, variable: str, read_seconds: float | None
) -> dict[str, Any]:
    """Arguments of the ``openai`` package's clients.

    Args:
        option: That gave the address, for messages.
        address: Of the server, up to ``/v1``.
        key: The server's, if it asks for one.
        variable: Environment variable of the key, for messages.
        read_seconds: Longest silence of the server; ``None`` waits without end.

    Raises:
        ModelError: Address or key cannot be used.
    """
    check_address(option, address, variable)
    key = (key or "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ModelError(f"{variable} holds characters that no key has; set it again")
    return {
        "base_url": address,
        "api_key": key or "none",  # left out, the client would send the key for OpenAI's own API
        "max_retries": 0,  # repeated here
        "timeout": openai.Timeout(read_seconds, connect=CONNECT_SECONDS),
    }


def retry_settings() -> dict[str, Any]:
    """Arguments of tenacity's ``Retrying`` and ``AsyncRetrying``."""
    return {
        "retry": retry_if_exception(_is_passing),
        "stop": stop_after_attempt(ATTEMPTS),
        "wait": _pause,
        "reraise": True,
    }


def problem(error: Exception, variable: str, read_seconds: float) -> str:
    """What is wrong and what to do, in one line.

    Args:
        error: Of the client.
        variable: Environment variable of the server's key.
        read_seconds: How long it was waited for.
    """
    if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
        return f"the server refuses the key; set {variable} to a valid one"
    if isinstance(error, openai.APITimeoutError | httpx.TimeoutException):
        return f"no answer in {read_seconds:g} seconds; try again later"
    if isinstance(error, openai.APIConnectionError | httpx.TransportError):
        return "the server cannot be reached; start it, or give the right address"
    if isinstance(error, openai.APIStatusError):
        again = "give another model"
        if error.status_code in PASSING:
            again = "try again later"
        elif error.status_code in REFUSED:
            again = "send less text, or give another model"
        return f"the server answers {error.status_code} ({_reason(error)}); {again}"
    if type(error) is openai.APIError and str(error).strip():  # an event of a stream
        return f"the server says: {_first_words(str(error))}"
    return (
        "the server's answer is not that of an OpenAI-compatible server; give its URL up to /v1, "
        f"as in {EXAMPLE}"
    )


def is_away(error: Exception) -> bool:
    """Whether the server is down, silent or busy, which tells nothing of what it can do."""
    if isinstance(error, openai.APIStatusError):
        return error.status_code in BUSY
    return isinstance(error, openai.APIConnectionError | httpx.TransportError)


def chosen(option: str, names: Sequence[str], wanted: str) -> str:
    """The model that is wanted, or the only one.

    Raises:
        ModelError: There is no such model, or there are several.
    """
    if wanted and wanted not in names:
        raise ModelError(
            f"{option}#{wanted}: the server has no such model; it has {listed(names)}, name one "
            "after the #"
        )
    if not wanted and len(names) != 1:
        raise ModelError(
            f"{option}: the server has {listed(names)}; name one after a #, "
            f"as in {EXAMPLE}#{names[0] if names else 'name'}"
        )
    return wanted or names[0]


def listed(names: Sequence[str]) -> str:
    """The names of models, of many the first."""
    more = f" and {len(names) - SHOWN_MODELS} more" if len(names) > SHOWN_MODELS else ""
    return ", ".join(names[:SHOWN_MODELS]) + more if names else "no model"


def _is_passing(error: BaseException) -> bool:
    """Whether the same request may succeed in a moment."""
    if isinstance(error, openai.APIStatusError):
        return error.status_code in PASSING and _asked_pause(error) <= LONGEST_ASKED
    away = isinstance(error, openai.APIConnectionError)
    return away and not isinstance(error, openai.APITimeoutError)  # it took long enough


def _pause(state: RetryCallState) -> float:
    """Seconds until the next attempt: longer each time, and what the server asks."""
    error = state.outcome.exception() if state.outcome else None
    asked = _asked_pause(error) if isinstance(error, openai.APIStatusError) else 0.0
    return max(asked, wait_exponential_jitter(FIRST_WAIT, LONGEST_WAIT, jitter=FIRST_WAIT)(state))


def _asked_pause(error: openai.APIStatusError) -> float:
    """Seconds of ``Retry-After``; 0 where there is none."""
    asked = error.response.headers.get("retry-after", "")
    return float(asked) if asked.isdecimal() else 0.0


def _reason(error: openai.APIStatusError) -> str:
    """The server's own words, in one line."""
    message = error.body.get("message") if isinstance(error.body, dict) else None
    return _first_words(str(message or error.message))


def _first_words(text: str) -> str:
    return " ".join(text.split())[:LONGEST_REASON]
