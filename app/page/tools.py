"""What a page may be given to measure with, so that it does not import `evaluation`."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.page.conversation import SessionTasks
    from app.server.service import Service
    from control.forgetting.record import Record

MakeAttempts = Callable[["Service", "Record", threading.Event, str], Iterator[dict[str, Any]]]
"""Attempts to get a forgotten fact, until the event is set; yields what ``attempts.jinja`` shows"""

BuildTab = Callable[["Service", "SessionTasks"], None]
"""Lays a tab out and wires it"""


@dataclass(frozen=True)
class PageTools:
    """Tools of a page.

    Attributes:
        attempts: Makes the attempts of the tab for forgetting; without it there are none.
        tabs: Further tabs, each with its title.
    """

    attempts: MakeAttempts | None = None
    tabs: tuple[tuple[str, BuildTab], ...] = ()
