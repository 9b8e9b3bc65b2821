"""The wheel holds all that Fulcrum needs: built from a copy, installed where nothing of it is."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest

from tests.needs import lacking

pytestmark = [pytest.mark.kill, pytest.mark.xdist_group("wheel")]
ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = PROJECT["tool"]["mypy"]["packages"]
UNSHIPPED = shutil.ignore_patterns("__pycache__", "*.egg-info")

LOOK = """
import importlib, pkgutil, sys
from pathlib import Path

for name in sys.argv[1:]:
    top = importlib.import_module(name)
    inner = [found.name for found in pkgutil.walk_packages(top.__path__, f"{name}.") if found.ispkg]
    for package in [name, *inner]:
        print(Path(importlib.import_module(package).__file__).parent)
"""

READ = """
from app import factory
from control.conflict import calibration
from control.forgetting.aliases import with_aliases
from control.forgetting.record import Record
from data import DIRECTORY

assert len((DIRECTORY / "passages.jsonl").read_text().splitlines()) > 100
assert (factory.ADAPTERS / "cross-encoder" / "adapter_model.safetensors").stat().st_size > 1_000
assert calibration.load(DIRECTORY / "calibrations" / "default.json").model
assert "Pérou" in with_aliases(Record("Peru", relation="capital", answers=("Lima",))).aliases
"""


def run(program, *arguments, cwd, home=None):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if home is not None:
        environment["FULCRUM_HOME"] = str(home)
    done = subprocess.run(
        [program, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The programs of an environment that holds the wheel, and sees the dependencies of this one.

    The dependencies are found by their folder alone, so that an editable install of the checkout
    is not.
    """
    try:
        import setuptools  # noqa: F401
    except ImportError:
        lacking("setuptools", "run: pip install setuptools")
    folder = tmp_path_factory.mktemp("wheel")
    source, target = folder / "source", folder / "environment"
    source.mkdir()
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=UNSHIPPED)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ".", cwd=source)
    [wheel] = folder.glob("*.whl")
    venv.create(target, symlinks=True)
    run(*pip, "--python", target, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    variables = {"base": str(target), "platbase": str(target)}
    packages = Path(sysconfig.get_path("purelib", "venv", variables))
    seen = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (packages / "dependencies.pth").write_text("\n".join(sorted(seen)), encoding="utf-8")
    return Path(sysconfig.get_path("scripts", "venv", variables)), packages, folder


def test_every_file_of_the_packages_is_in_the_wheel(installed):
    _, packages, _ = installed
    for name in PACKAGES:
        for file in (ROOT / name).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                shipped = packages / file.relative_to(ROOT)
                assert shipped.is_file(), f"not in the wheel: {file.relative_to(ROOT)}"
                assert shipped.read_bytes() == file.read_bytes()


def test_every_package_is_imported_from_the_wheel_and_states_its_types(installed):
    programs, packages, folder = installed
    places = run(programs / "python", "-c", LOOK, *PACKAGES, cwd=folder).splitlines()
    inits = [file for name in PACKAGES for file in (ROOT / name).rglob("__init__.py")]
    assert len(places) == len(inits)
    assert all(Path(place).is_relative_to(packages) for place in places)
    for name in PACKAGES:
        assert (packages / name / "py.typed").is_file()


def test_the_command_of_the_wheel_runs(installed):
    programs, _, folder = installed
    assert PROJECT["project"]["version"] in run(programs / "fulcrum", "--version", cwd=folder)
    shown = run(programs / "fulcrum", "--help", cwd=folder)
    for command in ("ask", "ingest", "forget", "eval", "train", "bench", "serve"):
        assert f"\n  {command} " in shown


def test_the_wheel_says_where_its_tasks_for_the_evaluation_harness_are(installed):
    programs, packages, folder = installed
    said = Path(run(programs / "fulcrum", "eval", "harness", cwd=folder).strip())
    assert said.is_relative_to(packages)
    assert (said / "fulcrum_conflicts_passage.yaml").is_file()
    count = "import utils; print(len(utils.conflicts('own')))"
    alone = run(
        programs / "python",
        "-I",
        "-c",
        f"import sys; sys.path.insert(0, {str(said)!r}); {count}",
        cwd=folder,
    )
    assert int(alone) > 1000


def test_the_data_of_the_wheel_is_of_use(installed):
    programs, _, folder = installed
    run(programs / "python", "-c", READ, cwd=folder)
    forget = programs / "fulcrum", "forget"
    sentence = "The capital of Peru is Lima"
    said = run(*forget, "add", sentence, "--yes", cwd=folder, home=folder / "home")
    assert "Peru, capital: Lima is forgotten from now on" in said
    assert "whole, 1 event" in run(*forget, "verify", cwd=folder, home=folder / "home")
