"""A service over the tiny model: all of it is real but what the model says."""

import dataclasses

import pytest
from starlette.testclient import TestClient

from app import factory
from app import settings as settings_module
from app.api import application
from app.server.security import Keys, RequestLimits
from app.server.service import Service
from control.conflict.reader import Reading
from tests.server import Running

READING, ADMINISTRATION = "r" * 24, "a" * 24


class NumberReader:
    """Answers questions about a window by the number in a text about one."""

    def read(self, asked):
        return [self._read(question, text) for question, text in asked]

    def _read(self, question, text):
        numbers = [word for word in text.split() if word.isdigit() and word not in question]
        if "window" not in question or "window" not in text or not numbers:
            return Reading()
        return Reading(numbers[0], text.index(numbers[0]), 0.999)


@pytest.fixture
def number_reader(monkeypatch):
    """The reader is a `NumberReader`."""
    monkeypatch.setattr(factory, "reader", NumberReader)


@pytest.fixture
def service(tiny, monkeypatch, tmp_path):
    """Make a service; it is loaded unless told otherwise."""
    monkeypatch.setattr(
        factory, "language_model", lambda _: dataclasses.replace(tiny, identity="tiny")
    )
    made = []

    def make(loaded=True, **given):
        given = {"without": ("rewriter", "filter", "reservoir"), "upload_seconds": 100.0, **given}
        new = Service(settings_module.load(cache=tmp_path / "cache", **given))
        made.append(new)
        if loaded:
            new.load()
            assert new.state.name == "ready", new.state.message
        return new

    yield make
    for each in made:
        each.close()


@pytest.fixture
def client(service):
    """Make a client of the API over a service, on the loopback and without keys by default."""

    def make(over=None, keys=None, host="127.0.0.1", key=None, **limits):
        app = application.build(over or service(), keys or Keys(), host, RequestLimits(**limits))
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return TestClient(app, base_url="http://localhost", headers=headers)

    return make


@pytest.fixture
def keys():
    """A reading and an administration key."""
    return Keys(READING, ADMINISTRATION)


@pytest.fixture
def running(service):
    """Make a server on a socket, without the page; it has keys where they are given."""
    made = []

    def make(over=None, header_seconds=20.0, **given):
        made.append(Running(over or service(**given), False, header_seconds))
        return made[-1]

    yield make
    for each in made:
        each.stop()


def count_forwards(service, at=lambda _: None):
    """How often the model has been run since; ``at`` is told each time."""
    count = [0]

    def hook(*_):
        count[0] += 1
        at(count[0])

    service.language_model.model.register_forward_hook(hook)
    return count
