import pytest

from app.cli import bench
from evaluation.bench import serving
from foundation.errors import InputError, ModelError


def test_clients_are_heard_out_and_counted(running):
    server, told = running(), []
    result = serving.run(
        server.url, ["Who?", "Where?"], [1, 3], 0.3, progress=lambda: told.append(1)
    )
    one, three = result["rows"]
    assert (one["clients"], three["clients"]) == (1, 3)
    assert one["ratio"] == 1.0
    assert three["answers"] >= 3
    assert len(told) == one["answers"] + three["answers"]
    for row in (one, three):
        assert not row["errors"]
        assert row["tokens_per_second"] > 0
        assert row["first_ms_p50"] <= row["answer_ms_p95"]
    assert serving.table(result).row_count == 2


def test_a_server_that_refuses_is_no_result(running):
    server = running(read_key="r" * 24, admin_key="a" * 24)
    with pytest.raises(ModelError, match="no answer"):
        serving.run(server.url, ["Who?"], [1], 0.1)
    assert serving.run(server.url, ["Who?"], [1], 0.1, key="r" * 24)["rows"]


def test_numbers_of_clients_are_checked():
    with pytest.raises(InputError, match="--clients x"):
        bench._sizes("x", "--clients")
