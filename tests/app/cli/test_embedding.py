import pytest

from app import cli, factory
from foundation import model_server
from tests.embedding_server import serving


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(model_server, "FIRST_WAIT", 0.001)
    factory._embedding.cache_clear()  # each command is a process of its own


@pytest.fixture
def server():
    with serving() as running:
        yield running


@pytest.fixture
def notes(tmp_path):
    path = tmp_path / "rhine.md"
    path.write_text("# Rhine\n\nThe Rhine is 1,233 km long.\n", encoding="utf-8")
    return path


def run(capsys, *arguments):
    code = cli.main([str(argument) for argument in arguments])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def refused(capsys, *arguments):
    code, out, err = run(capsys, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    return err


def test_a_server_embeds_what_is_ingested(capsys, server, notes, monkeypatch):
    server.key = "right"
    monkeypatch.setenv("FULCRUM_EMBEDDING_KEY", "right")
    code, out, _ = run(capsys, "--embedding", server.url, "ingest", notes)
    assert code == 0
    assert "1 document in 1 passage added" in out
    [[text]] = server.batches
    assert text.endswith("The Rhine is 1,233 km long.")
    monkeypatch.setenv("FULCRUM_EMBEDDING", f"{server.url}#words")
    assert "1 already there" in run(capsys, "ingest", notes)[1]


def test_an_index_is_refused_with_another_embedding_model(capsys, server, notes):
    run(capsys, "--embedding", server.url, "ingest", notes)
    says = refused(capsys, "ask", "How long is the Rhine?")
    assert "was built with the embedding model words (served) and cannot be used" in says
    assert "with all-MiniLM-L6-v2; name words (served) by --embedding, or ingest again" in says
    server.dimension = 16
    factory._embedding.cache_clear()
    other = notes.with_name("elbe.md")
    other.write_text("# Elbe\n\nThe Elbe is 1,094 km long.\n", encoding="utf-8")
    says = refused(capsys, "--embedding", server.url, "ingest", other)
    assert "8192-dimensional vectors of words (served), but words (served) now gives 16" in says


def test_what_is_wrong_with_a_server_is_one_line(capsys, server, notes, monkeypatch):
    asked = ["--embedding", f"{server.url}#words", "ingest", notes]
    server.failures = [500] * model_server.ATTEMPTS
    assert "answers 500" in refused(capsys, *asked)
    server.body = b"<html>"
    assert "not that of an OpenAI-compatible server" in refused(capsys, *asked)
    server.key = "right"
    monkeypatch.setenv("FULCRUM_EMBEDDING_KEY", "wrong")
    assert "refuses the key; set FULCRUM_EMBEDDING_KEY" in refused(capsys, *asked)
    monkeypatch.delenv("FULCRUM_EMBEDDING_KEY")
    server.key = None
    assert "no such model; it has words" in refused(
        capsys, *asked[:1], f"{server.url}#x", *asked[2:]
    )


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("./absent", "./absent does not exist; give a directory"),
        (".", "it has no modules.json; give the directory that sentence-transformers saved"),
        ("nobody/nothing", "nobody/nothing cannot be loaded"),
        ("http://127.0.0.1:9/v1", "cannot be reached; start it"),
        ("http://", "names no server"),
    ],
)
def test_an_embedding_model_that_cannot_be_used(capsys, monkeypatch, tmp_path, notes, name, says):
    monkeypatch.chdir(tmp_path)
    assert says in refused(capsys, "--embedding", name, "ingest", notes)
