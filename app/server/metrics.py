"""Metrics for Prometheus; they hold no questions and no answers."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from foundation.errors import FulcrumError

if TYPE_CHECKING:
    from app.server.service import Service
    from control.answer import Answer

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 1.5, 2, 3, 5, 10, 30, 60)


class Metrics:
    """The metrics of one server."""

    def __init__(self, service: "Service") -> None:
        """Create the metrics of a service's server."""
        disable_created_metrics()
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "fulcrum_requests",
            "Requests to the API by their route and status.",
            ["method", "route", "status"],
            registry=self._registry,
        )
        self.seconds = Histogram(
            "fulcrum_request_seconds",
            "Seconds until the whole answer was sent.",
            ["route"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self.first_token = Histogram(
            "fulcrum_first_token_seconds",
            "Seconds from a question to its first certain token, waiting included.",
            buckets=SECONDS,
            registry=self._registry,
        )
        self._tokens = Counter("fulcrum_tokens", "Tokens said.", registry=self._registry)
        self._answers = Counter(
            "fulcrum_answers",
            "Answers; refused ones would have told a forgotten fact.",
            ["outcome"],
            registry=self._registry,
        )
        self._conflicts = Counter(
            "fulcrum_conflicts",
            "Answers over which memory and passages disagreed.",
            registry=self._registry,
        )
        self._registry.register(_State(service))

    def count_answer(self, answer: "Answer") -> None:
        """Count an answer."""
        self._answers.labels("answered" if answer.tokens else "refused").inc()
        self._tokens.inc(len(answer.tokens))
        self._conflicts.inc(int(answer.conflict))

    def render(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self._registry)


class _State(Collector):
    """Gauges that are read from the service at each scrape."""

    def __init__(self, service: "Service") -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        service = self._service
        ready = service.state.name == "ready"
        yield _gauge("fulcrum_ready", "Whether the model is loaded.", int(ready))
        yield _gauge("fulcrum_waiting", "Questions that wait for their turn.", service.waiting)
        try:
            passages, events = service.documents.count(), service.ledger.version()
        except FulcrumError:
            return  # damaged: /health says so
        yield _gauge("fulcrum_passages", "Passages in the index.", passages)
        yield _gauge("fulcrum_ledger_events", "Events in the ledger.", events)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)
