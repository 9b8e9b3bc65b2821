"""What all tests share: an isolated home, a tiny random model, and the real small one."""

import logging
import os

os.environ["HF_HUB_OFFLINE"] = "1"
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):  # which share the cores
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))

import platformdirs
import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from control.conflict.calibration import ANY_MODEL, Calibration, Thresholds
from control.conflict.probe import NUMBERS, MemoryProbe
from control.engines import transformers as control_model
from control.engines.transformers import LanguageModel
from tests.needs import Lacking
from tests.postgres import serving

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,:?[]\n"
CHAT = (
    "{% for message in messages %}{{ '<' + message['role'] + '>' + message['content'] }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


MARKERS = {"real": "model", "postgres": "postgres", "browser": "browser"}  # of who asks for these


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark tests by their fixtures, and keep those together that share a costly one."""
    for item in items:
        for fixture in MARKERS.keys() & item.fixturenames:
            item.add_marker(MARKERS[fixture])
        if item.get_closest_marker("ray"):  # one cluster at a time
            item.add_marker(pytest.mark.xdist_group("ray"))
        elif "module" in scopes(item):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))


def scopes(item):
    """Of all fixtures that the test asks for."""
    return {definitions[-1].scope for definitions in item._fixtureinfo.name2fixturedefs.values()}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Tests that lack the same program are one line of the summary, whatever files they are in."""
    report = yield
    if call.excinfo and isinstance(call.excinfo.value, Lacking):
        report.longrepr = (str(item.config.rootpath / "tests"), None, str(call.excinfo.value))
    return report


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """No test touches the user's own state."""
    directory = tmp_path / "home"
    monkeypatch.setenv("FULCRUM_HOME", str(directory))
    return directory


@pytest.fixture(autouse=True)
def packaged_model_by_name(request, monkeypatch):
    """Who loads the packaged model is marked `model`, or `make test-fast` would become slow."""
    if request.node.get_closest_marker("model"):
        return

    def load(source, name):
        if name == control_model.PACKAGED_NAME:
            pytest.fail("the packaged model is loaded here; mark the test: @pytest.mark.model")
        return from_pretrained(source, name)

    from_pretrained = control_model._from_pretrained
    monkeypatch.setattr(control_model, "_from_pretrained", load)


@pytest.fixture(autouse=True)
def own_logs():
    """No test's ledger keeps anything out of the logs of the next."""
    before = {handler: list(handler.filters) for handler in logging.getLogger().handlers}
    yield
    for handler, filters in before.items():
        handler.filters[:] = filters


@pytest.fixture(scope="session")
def tiny():
    """A random two-layer model over single characters, in float32 so that equality is exact."""
    roles = ["<pad>", "<eos>", "<system>", "<user>", "<assistant>"]
    vocabulary = {token: number for number, token in enumerate([*roles, *LETTERS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="."))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", padding_side="left"
    )
    fast.add_special_tokens({"additional_special_tokens": roles[2:]})
    fast.chat_template = CHAT
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.5,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    return LanguageModel("tiny", LlamaForCausalLM(config).eval(), fast, 512)


@pytest.fixture(scope="session")
def cache():
    """The real cache, so that the packaged model is converted once for all runs."""
    return platformdirs.user_cache_path("fulcrum")


@pytest.fixture(scope="session")
def real(cache):
    """The packaged model."""
    return control_model.load(None, cache)


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server of this session, with pgvector."""
    with serving() as server:
        yield server


@pytest.fixture
def postgres_url(postgres):
    """An empty database of its own for the test."""
    database = postgres.new_database()
    yield postgres.url(database)
    postgres.drop(database)


@pytest.fixture(scope="session")
def always():
    """Calibrations that are equally sure of memory in every conflict: 1, 0, or undecided 0.5."""

    def calibration(confidence, **changed):
        values = {
            "model": ANY_MODEL,
            "name": "made up",
            "probe": MemoryProbe([0.0] * NUMBERS, [], 40 * (confidence - 0.5)),
            "known": [0.2, 0.4, 0.6, 0.8],
            "end": Thresholds(memory=0.3, passages=0.1),
            "auto": Thresholds(memory=0.5, passages=0.2),
            "alphas": [0.0, 0.25, 0.5, 0.75, 1.0],
            "ratios": [0.0, 0.1, 0.2, 0.6, 0.9],
            "measured": {"MR": 0.9},
        }
        return Calibration(**{**values, **changed})

    return calibration
