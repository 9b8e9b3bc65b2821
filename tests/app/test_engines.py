"""The commands and the server over a ``.gguf`` file that llama.cpp runs, and over a server."""

import json
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import torch

from app import cli
from app.server.service import Service
from app.settings import load
from control.conflict.calibration import SHIPPED
from control.conflict.calibration import load as load_calibration
from control.conflict.probe import ProbeFeatures
from control.engines import transformers
from evaluation.suites import observations
from evaluation.suites.observations import Observation
from tests.control.engines.fake_servers import FakeModel, serving
from tests.server import Running

BERGEN = "The capital of Norway is Bergen. Bergen has been the capital of Norway for long."
QUESTION = "What is the capital of Norway?"


@pytest.fixture
def passage(tmp_path):
    path = tmp_path / "norway.txt"
    path.write_text(BERGEN)
    return str(path)


def asked(capsys, model, *arguments):
    assert cli.main(["--model", model, "ask", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.model
def test_a_gguf_file_is_asked_and_forgets(capsys, passage):
    gguf = str(transformers.packaged_gguf())
    answer = asked(capsys, gguf, QUESTION, "--context", passage)
    assert answer["verdict"]["memory_says"] == "Oslo"
    assert answer["verdict"]["passages_say"] == "Bergen"
    assert answer["answer"].strip()
    assert {token["source"] for token in answer["tokens"]} == {"context"}
    assert answer["tokens"][0]["confidence_gain"] is None
    assert answer["tokens"][0]["log_p_context"] <= 0

    known = asked(capsys, gguf, QUESTION, "--closed-book")
    assert "Oslo" in known["answer"]
    fact = ["--subject", "Norway", "--relation", "capital", "--answer", "Oslo"]
    assert cli.main(["forget", "add", *fact, "--yes"]) == 0
    capsys.readouterr()
    refused = asked(capsys, gguf, QUESTION, "--closed-book")
    assert refused["tokens"] == []
    assert "Oslo" not in json.dumps(refused)
    beside = asked(capsys, gguf, "Which city of Norway is the largest?", "--closed-book")
    assert "Oslo" not in json.dumps(beside)


def seen(known, log_odds):
    """A conflict in which the packaged probe for any model gives memory these odds."""
    weights = torch.tensor(load_calibration(SHIPPED / "any-scores.json").probe.numbers)
    return Observation(
        f"{known} {log_odds}",
        None,
        known,
        True,
        False,
        ProbeFeatures(weights * log_odds / weights.square().sum(), torch.zeros(0, 0)),
        {"plain": known, "memory": not known},
        {"plain": not known, "memory": known},
    )


@pytest.mark.model
def test_a_few_facts_set_the_dial_of_a_gguf_file(capsys, passage, tmp_path, monkeypatch):
    monkeypatch.setenv("FULCRUM_CACHE", str(tmp_path / "cache"))
    gguf = str(transformers.packaged_gguf())
    facts = [seen(known, at / 10 + 2 * known) for at in range(12) for known in (True, False)]
    monkeypatch.setattr(observations, "run", lambda *_: facts)
    run = ["eval", "dial", "--calibrate", "--quick", "--out", str(tmp_path / "out")]
    assert cli.main(["--model", gguf, *run]) == 0
    [kept] = (tmp_path / "cache" / "calibrations").glob("*.json")
    own, anyones = map(load_calibration, (kept, SHIPPED / "any-scores.json"))
    assert own.probe == anyones.probe
    assert [own.confidence(each.evidence) >= own.end.memory for each in facts] == [
        each.known for each in facts
    ]
    capsys.readouterr()
    assert cli.main(["--model", gguf, "ask", QUESTION, "--context", passage]) == 0
    assert "not been calibrated" not in capsys.readouterr().err


@pytest.mark.model
def test_the_packaged_model_needs_no_quick_calibration(capsys, tmp_path):
    out = str(tmp_path / "out")
    assert cli.main(["eval", "dial", "--calibrate", "--quick", "--out", out]) == 2
    assert "comes with its calibration; leave out --quick" in capsys.readouterr().err


@pytest.mark.model
def test_a_gguf_file_is_served_to_many_at_once():
    settings = load(model=str(transformers.packaged_gguf()), without={"rewriter", "filter"})
    service = Service(settings)
    service.load()
    assert service.state.name == "ready", service.state.message
    running = Running(service, page=False)

    def ask(country):
        body = {
            "model": "fulcrum",
            "messages": [{"role": "user", "content": f"What is the capital of {country}?"}],
            "max_tokens": 16,
            "stream": True,
        }
        with httpx.stream(
            "POST",
            f"{running.url}/v1/chat/completions",
            json=body,
            timeout=None,  # noqa: S113
        ) as r:
            assert r.status_code == 200
            return r.read().decode()

    countries = ["Norway", "France", "Spain", "Italy", "Peru", "Egypt"]
    with ThreadPoolExecutor(len(countries)) as pool:
        told = list(pool.map(ask, countries))
    running.stop()
    service.end()
    assert all(each.rstrip().endswith("data: [DONE]") for each in told)
    assert not any('"error"' in each for each in told)
    assert "Paris" in "".join(
        json.loads(line[6:])["choices"][0]["delta"].get("content") or ""
        for line in told[1].splitlines()
        if line.startswith("data: {") and json.loads(line[6:])["choices"]
    )


def test_a_server_that_breaks_off_gives_one_line_and_no_answer(capsys, passage):
    model = FakeModel({"one two three": "one two three four five six", "Norway": "It is Bergen."})
    with serving(model, "llama") as fake:
        arguments = ["--model", fake.url, "ask", QUESTION, "--context", passage, "--json"]
        assert cli.main(arguments) == 0
        assert json.loads(capsys.readouterr().out)["answer"] == "It is Bergen."
        fake.faults.extend(["cut", "cut"])
        assert cli.main(arguments) == 2
        told = capsys.readouterr()
    assert told.out == ""
    assert told.err == (
        f"fulcrum: --model {fake.url}: the server broke off in the middle of an answer; ask again\n"
    )


def test_token_rules_need_another_engine(capsys, passage):
    with serving(FakeModel({}), "llama") as fake:
        assert cli.main(["--model", fake.url, "ask", "Who?", "--rule", "cad", "--closed-book"]) == 2
    assert "rule cad mixes the distributions of both branches" in capsys.readouterr().err
