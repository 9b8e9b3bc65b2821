"""Questions of several clients, answered in one batch."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from foundation.errors import InputError

if TYPE_CHECKING:
    from control.answer import Answer
    from control.assistant import Assistant, Query
    from control.decoding import Decoding, OnToken
    from control.trace import TokenTrace


@dataclass(frozen=True)
class Asked:
    """Questions of one client.

    Attributes:
        queries: The questions.
        on_token: Told a question's place among them and its token.
        cancelled: Set once nobody waits for the answers any more.
    """

    queries: "Sequence[Query]"
    on_token: "OnToken | None"
    cancelled: threading.Event


def answers(
    assistant: "Assistant", how: "Decoding", asked: Sequence[Asked]
) -> "list[list[Answer] | BaseException]":
    """The answers to what each client asked, or why its questions cannot be answered.

    A question that cannot be answered fails its own client alone.
    """
    try:
        return [*_batch(assistant, how, asked)]
    except InputError as error:  # before anything was said
        if len(asked) == 1:
            return [error]
        return [found for each in asked for found in answers(assistant, how, [each])]


def _batch(assistant: "Assistant", how: "Decoding", asked: Sequence[Asked]) -> "list[list[Answer]]":
    places = [(each, place) for each in asked for place in range(len(each.queries))]

    def tell(at: int, token: "TokenTrace") -> None:
        each, place = places[at]
        if each.on_token is not None:
            each.on_token(place, token)

    queries = [query for each in asked for query in each.queries]
    found = iter(assistant.ask_batch(queries, how, tell))
    return [[next(found) for _ in each.queries] for each in asked]
