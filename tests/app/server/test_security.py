import base64

import pytest

from app import settings as settings_module
from app.server import security
from app.server.security import Keys
from foundation.errors import InputError
from tests.app.conftest import ADMINISTRATION, READING


def settings(**given):
    return settings_module.load(**given)


def test_on_the_loopback_no_key_is_needed():
    assert security.load_keys(settings(), "127.0.0.1") == Keys()
    assert Keys().role(None) == "administrator"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])  # noqa: S104
def test_elsewhere_both_keys_are_needed(host):
    with pytest.raises(InputError, match=r"FULCRUM_READ_KEY.*FULCRUM_ADMIN_KEY"):
        security.load_keys(settings(), host)
    with pytest.raises(InputError, match="lets other machines in"):
        security.load_keys(settings(read_key=READING), host)
    both = settings(read_key=READING, admin_key=ADMINISTRATION)
    assert security.load_keys(both, host) == Keys(READING, ADMINISTRATION)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_these_are_the_loopback(host):
    assert security.is_loopback(host)


def test_keys_that_protect_nothing_are_refused():
    with pytest.raises(InputError, match="fewer than 16 characters"):
        security.load_keys(settings(read_key="short", admin_key=ADMINISTRATION), "127.0.0.1")
    with pytest.raises(InputError, match="are the same"):
        security.load_keys(settings(read_key=READING, admin_key=READING), "127.0.0.1")


def test_keys_are_in_no_message_and_no_representation():
    given = settings(read_key=READING, admin_key=ADMINISTRATION)
    assert READING not in repr(given)


def test_each_key_has_its_role(keys):
    assert keys.role(READING) == "reader"
    assert keys.role(ADMINISTRATION) == "administrator"
    for wrong in (None, "", READING[:-1], READING + "r", "é" * 24):
        assert keys.role(wrong) is None


def test_a_browser_is_asked_for_a_key_and_its_password_is_taken(client, keys):
    page = client(keys=keys)
    refused = page.get("/")
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith("Basic")
    shown = base64.b64encode(f"me:{READING}".encode()).decode()
    assert page.get("/", headers={"Authorization": f"Basic {shown}"}).status_code == 404
    for broken in ("Basic !", "Basic", "Basic " + base64.b64encode(b"\xff").decode(), "Digest x"):
        assert page.get("/", headers={"Authorization": broken}).status_code == 401


def test_names_that_lead_here_from_outside_are_refused(client):
    page = client()
    assert page.get("/health", headers={"Host": "evil.example"}).status_code == 403
    assert page.get("/health", headers={"Host": "[broken"}).status_code == 403
    assert page.get("/health", headers={"Host": "127.0.0.1:7860"}).status_code == 200


def test_pages_of_other_servers_cannot_make_a_browser_forget(client):
    page = client()
    body = {"sentence": "The capital of Chile is Santiago"}
    foreign = {"Origin": "https://evil.example"}
    assert page.post("/v1/forget", json=body, headers=foreign).status_code == 403
    assert page.post("/v1/forget", json=body, headers={"Origin": "null"}).status_code == 403
    assert page.get("/v1/forget").json()["data"] == []
    own = {"Origin": "http://localhost"}
    assert page.post("/v1/forget", json=body, headers=own).status_code == 201
