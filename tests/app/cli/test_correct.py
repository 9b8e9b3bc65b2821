import json

import pytest

REFUND = "The refund window is 30 days"
SHORTER = "The refund window is 14 days"

pytestmark = pytest.mark.usefixtures("number_reader")


@pytest.fixture
def listed(done):
    return lambda: json.loads(done("correct", "--list", "--json"))


def test_a_correction_is_pinned_listed_and_withdrawn(done, listed):
    out = done("correct", REFUND, "--source", "board meeting", "--who", "Ann", "--scope", "refunds")
    [correction] = listed()
    assert out.startswith(f"{correction['id']}: {REFUND} is pinned (")
    assert (correction["statement"], correction["source"]) == (REFUND, "board meeting")
    assert (correction["who"], correction["scope"]) == ("Ann", "refunds")
    shown = done("correct", "--list")
    assert f"{REFUND}  source=board meeting  who=Ann  scope=refunds" in shown
    gone = done("correct", "--withdraw", correction["id"], "--who", "Ben")
    assert gone == f"{correction['id']}: {REFUND} is withdrawn\n"
    assert done("correct", "--list") == "nothing is corrected\n"
    audit = done("forget", "audit")
    assert "corrected" in audit.splitlines()[0]
    assert "correction withdrawn" in audit.splitlines()[1]
    assert "who=Ben" in audit
    assert done("forget", "verify") == "whole, 2 events\n"
    assert done("forget", "list") == "nothing is forgotten\n"


def test_the_same_statement_is_no_mistake(done, listed):
    done("correct", REFUND)
    assert "is pinned already, since 2" in done("correct", f"{REFUND}.")
    assert json.loads(done("correct", REFUND, "--json"))["new"] is False
    assert len(listed()) == 1


def test_replacing_says_what_is_withdrawn(done, refused, listed):
    first = json.loads(done("correct", REFUND, "--json"))["id"]
    assert "no correction 'none'" in refused("correct", SHORTER, "--replace", "none")
    second = json.loads(done("correct", SHORTER, "--replace", first, "--json"))
    assert second["replaced"] == [first]
    assert [each["id"] for each in listed()] == [second["id"]]
    assert "was withdrawn already" in refused("correct", "--withdraw", first)
    withdrawn, pinned = done("correct", REFUND, "--replace", second["id"]).splitlines()
    assert withdrawn.endswith(f"{SHORTER} is withdrawn")
    assert f"{REFUND} is pinned (" in pinned


def test_what_is_forgotten_stands_above(done, refused, listed):
    done("correct", "Lima is the capital of Peru")
    done("forget", "add", "The capital of Peru is Lima", "--yes")
    assert "not used: it states what is forgotten" in done("correct", "--list")
    [correction] = listed()
    assert correction["forgotten"] == [json.loads(done("forget", "list", "--json"))[0]["id"]]
    said = refused("correct", "Peru's capital is Lima")
    assert "says something that is forgotten" in said
    assert "Lima" not in said
