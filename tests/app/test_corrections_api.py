"""/v1/corrections over a real service; the reader is made up."""

import pytest

from tests.app.conftest import ADMINISTRATION, READING

PATH = "/v1/corrections"
REFUND = {"statement": "The refund window is 30 days", "source": "board meeting", "who": "Ann"}
SHORTER = {"statement": "The refund window is 14 days"}
CHILE = {"subject": "Chile", "relation": "capital", "answers": ["Santiago"]}


pytestmark = pytest.mark.usefixtures("number_reader")


@pytest.fixture
def one(client, service):
    return client(service(loaded=False))


def test_a_correction_is_pinned_listed_and_withdrawn(one):
    added = one.post(PATH, json=REFUND)
    assert added.status_code == 201
    pinned = added.json()
    assert (pinned["statement"], pinned["source"], pinned["new"]) == (
        REFUND["statement"],
        "board meeting",
        True,
    )
    again = one.post(PATH, json=REFUND)
    assert (again.status_code, again.json()["new"]) == (200, False)
    assert [each["id"] for each in one.get(PATH).json()["data"]] == [pinned["id"]]
    assert one.delete(f"{PATH}/{pinned['id']}?who=Ben").json()["id"] == pinned["id"]
    assert one.get(PATH).json()["data"] == []
    assert one.delete(f"{PATH}/{pinned['id']}").status_code == 404
    kinds = [event["kind"] for event in one.get("/v1/forget/audit").json()["data"]]
    assert kinds == ["corrected", "correction withdrawn"]
    assert one.get("/v1/forget/verify").json()["whole"] is True


def test_an_earlier_one_is_replaced(one):
    first = one.post(PATH, json=REFUND).json()
    refused = one.post(PATH, json={**SHORTER, "replace": ["none"]})
    assert refused.status_code == 400
    assert "fulcrum" not in refused.json()["error"]["message"]
    replaced = one.post(PATH, json={**SHORTER, "replace": [first["id"]]})
    assert (replaced.status_code, replaced.json()["replaced"]) == (201, [first["id"]])
    assert [each["id"] for each in one.get(PATH).json()["data"]] == [replaced.json()["id"]]


@pytest.mark.parametrize(
    "body",
    [{}, {"statement": " "}, {"statement": "Is it?"}, {"statement": "x" * 1_001}, {"text": "x"}],
)
def test_what_is_no_statement_is_refused(one, body):
    refused = one.post(PATH, json=body)
    assert refused.status_code == 400
    assert "fulcrum" not in refused.json()["error"]["message"]  # no command, over HTTP
    assert one.get(PATH).json()["data"] == []


def test_what_is_forgotten_stands_above(one):
    statement = {"statement": "Santiago is the capital of Chile"}
    one.post(PATH, json=statement)
    fact = one.post("/v1/forget", json=CHILE).json()
    assert one.get(PATH).json()["data"][0]["forgotten"] == [fact["id"]]
    refused = one.post(PATH, json={"statement": "The capital of Chile is Santiago"})
    assert refused.status_code == 400
    assert "Santiago" not in refused.text


def test_administrators_alone_correct(client, service, keys):
    over = service(loaded=False)
    reader, administrator = (client(over, keys, key=key) for key in (READING, ADMINISTRATION))
    assert client(over, keys).get(PATH).status_code == 401
    assert reader.get(PATH).status_code == 403
    assert reader.post(PATH, json=REFUND).status_code == 403
    assert reader.delete(f"{PATH}/x").status_code == 403
    assert administrator.post(PATH, json=REFUND).status_code == 201


def test_the_description_names_the_path(one):
    assert {PATH, f"{PATH}/{{correction_id}}"} <= one.get("/v1/openapi.json").json()["paths"].keys()
