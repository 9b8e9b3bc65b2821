"""What the container files name exists: paths, packages, commands, options, settings, services."""

import ast
import json
import re
import shlex
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from app.cli.main import cli
from app.server.security import OPEN_PATH
from app.settings import PREFIX, Settings
from control.engines.transformers import PACKAGE, PACKAGE_VERSION

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = (ROOT / "compose.yaml").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
KNOWN = ("FROM", "ARG", "ENV", "RUN", "WORKDIR", "COPY", "USER", "VOLUME", "EXPOSE", "HEALTHCHECK")
SERVICES = yaml.safe_load(COMPOSE)["services"]
PORT = Settings.model_fields["port"].default


def instructions():
    """Those of the Dockerfile, in order: (name, arguments)."""
    lines = "\n".join(line for line in DOCKERFILE.splitlines() if not line.startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", lines)
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def arguments(name):
    return [given for each, given in instructions() if each == name]


def options(command, given):
    """Refuse what the command line would refuse."""
    found, context = cli, cli.make_context("fulcrum", [], resilient_parsing=True)
    while hasattr(found, "get_command"):
        name, *given = given
        found = found.get_command(context, name)
        assert found is not None, f"{command}: no command {name}"
    found.make_parser(context).parse_args(list(given))


def test_every_instruction_is_known():
    assert {name for name, _ in instructions()} <= {*KNOWN, "ENTRYPOINT", "CMD"}


def test_what_is_copied_exists_and_reaches_the_build():
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    kept = {line[1:] for line in ignored if line.startswith("!")}
    sources = [
        source
        for given in arguments("COPY")
        if not given.startswith("--from")
        for source in given.split()[:-1]
    ]
    assert sorted(sources) == sorted(kept)
    assert [source for source in sources if not (ROOT / source).exists()] == []
    shipped = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    for pattern in shipped:
        assert any(fnmatch(source, pattern) for source in sources), pattern
    assert {PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]} <= set(sources)


def test_what_is_copied_between_the_stages_was_made():
    stages = [given.split(" AS ")[1] for given in arguments("FROM") if " AS " in given]
    made = [given.split()[-1] for given in arguments("RUN") if given.startswith("python -m venv")]
    for given in arguments("COPY"):
        if given.startswith("--from="):
            stage, source, _ = given.removeprefix("--from=").split()
            assert stage in stages
            assert source in made


def test_python_and_the_packages_are_those_of_the_project():
    least = PROJECT["project"]["requires-python"].removeprefix(">=")
    for given in arguments("FROM"):
        version = re.match(r"python:([\d.]+)", given)[1]
        assert tuple(map(int, version.split("."))) >= tuple(map(int, least.split(".")))
    [extras] = re.findall(r'"\.\[([\w,]+)\]"', DOCKERFILE)
    assert set(extras.split(",")) <= PROJECT["project"]["optional-dependencies"].keys()
    wheel = f"--no-deps {PACKAGE}=={PACKAGE_VERSION}"
    assert wheel in DOCKERFILE
    assert wheel in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_the_variables_are_settings():
    named = set(re.findall(rf"\b{PREFIX}[A-Z_]+\b", DOCKERFILE + COMPOSE))
    known = {f"{PREFIX}{field}".upper() for field in Settings.model_fields}
    assert named
    assert named - known == set()


def test_the_commands_and_their_options_exist():
    [entry], [command] = arguments("ENTRYPOINT"), arguments("CMD")
    assert json.loads(entry)[0] in PROJECT["project"]["scripts"]
    options("CMD", json.loads(command))
    commented = re.findall(r" fulcrum ((?:ask|ingest|forget|serve) .+)", DOCKERFILE)
    assert commented
    for line in commented:
        options(line, shlex.split(line))


def test_the_health_check_asks_the_server_where_it_is():
    [check] = arguments("HEALTHCHECK")
    program, flag, code = json.loads(check.partition("CMD ")[2])
    assert (program, flag) == ("python", "-c")
    ast.parse(code)
    assert f"http://127.0.0.1:{PORT}{OPEN_PATH}" in code
    assert arguments("EXPOSE") == [str(PORT)]


def test_it_runs_as_a_user_of_its_own_whose_state_is_a_volume():
    [user], [volume] = arguments("USER"), arguments("VOLUME")
    [created] = [given for given in arguments("RUN") if given.startswith("useradd")]
    assert created.split()[-1] == user != "root"
    assert f"--home-dir {volume} " in created
    environment = dict(part.split("=", 1) for given in arguments("ENV") for part in given.split())
    for name in ("HOME", "CACHE"):
        assert Path(environment[f"{PREFIX}{name}"]).is_relative_to(volume)
    targets = [mount.split(":")[1] for mount in SERVICES["fulcrum"]["volumes"]]
    assert targets == [volume]


def test_the_services_name_each_other_and_their_volumes():
    declared = yaml.safe_load(COMPOSE)["volumes"]
    mounted = [mount.split(":")[0] for each in SERVICES.values() for mount in each["volumes"]]
    assert sorted(mounted) == sorted(declared)
    for url in (
        SERVICES["fulcrum"]["environment"][f"{PREFIX}{name}"] for name in ("INDEX", "LEDGER")
    ):
        user, host, database = re.fullmatch(
            r"postgresql://(\w+):\$\{.+\}@(\w+):5432/(\w+)", url
        ).groups()
        given = SERVICES[host]["environment"]
        assert (user, database) == (given["POSTGRES_USER"], given["POSTGRES_DB"])
    for name, how in SERVICES["fulcrum"]["depends_on"].items():
        assert how == {"condition": "service_healthy"}
        assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"
    assert (ROOT / SERVICES["fulcrum"]["build"]).is_dir()
    assert SERVICES["fulcrum"]["ports"] == [f"127.0.0.1:{PORT}:{PORT}"]


def test_no_secret_has_a_default():
    values = [str(value) for each in SERVICES.values() for value in each["environment"].values()]
    used = set(re.findall(r"\$\{(\w+)", " ".join(values)))
    required = set(re.findall(r"\$\{(\w+):\?", " ".join(values)))
    assert used == required
    assert required == set(
        re.findall(r"\b([A-Z_]+(?:KEY|PASSWORD))\b", COMPOSE.partition("services:")[0])
    )


@pytest.mark.parametrize("file", ["Dockerfile", "compose.yaml"])
def test_pages_named_in_comments_exist(file):
    text = (ROOT / file).read_text(encoding="utf-8")
    for page in re.findall(r"\bdocs/[\w.-]+|\bcompose\.yaml|\bMakefile", text):
        assert (ROOT / page).exists()
