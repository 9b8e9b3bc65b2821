"""The fields of a header in YAML or TOML at the beginning of a Markdown file."""

import re
import tomllib
from dataclasses import dataclass, field
from datetime import date

import yaml

from retrieval.ingest.content import VERSION_KEY

YAML = re.compile(r"\A---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*\n", re.DOTALL)
# A header without an end: its lines are sure to be fields where all of its keys are in lower case.
OPEN_YAML = re.compile(
    r"\A---[ \t]*\n((?:[a-z][\w.-]*[ \t]*:(?:[ \t].*)?\n(?:(?:[ \t]+\S|- ).*\n)*){2,})"
    r"(?=[ \t]*\n\s*\S|#)"
)
TOML = re.compile(r"\A\+\+\+[ \t]*\n(.*?)\n\+\+\+[ \t]*\n", re.DOTALL)
YAML_FIELD = re.compile(r"(?P<key>[^\W\d][\w.-]*)[ \t]*:(?!//)(?P<value>.*)")
TOML_FIELD = re.compile(r"(?P<key>[^\W\d][\w.-]*)[ \t]*=(?P<value>.*)")

INVALID = "is not valid {}, so only its lines that hold one field were read"
UNCLOSED = "has no --- at its end, so it was read up to its last field"


@dataclass(frozen=True)
class FrontMatter:
    """The header of a file.

    Attributes:
        text: What follows it.
        fields: Empty if there is no header.
        fault: What is wrong with it and what was read of it; empty if nothing is.
    """

    text: str
    fields: dict[str, object] = field(default_factory=dict)
    fault: str = ""


def split_front_matter(source: str) -> FrontMatter:
    """Part the header of a file from its text.

    Of a malformed header the lines of the form "key: value" are read. What stands between two
    rules and does not consist of such lines is text. A header without an end is one if it is
    valid, has two fields or more, and an empty line or a heading follows.
    """
    if found := YAML.match(source):
        name, stated = "YAML", _load_yaml(found[1])
    elif found := TOML.match(source):
        name, stated = "TOML", _load_toml(found[1])
    else:
        return _split_open(source)
    text = source[found.end() :]
    if isinstance(stated, dict):
        return FrontMatter(text, _named(stated))
    fields = _read_lines(found[1], name)
    return FrontMatter(text, fields, INVALID.format(name)) if fields else _split_open(source)


def _split_open(source: str) -> FrontMatter:
    found = OPEN_YAML.match(source)
    stated = _load_yaml(found[1]) if found else None
    if found is None or not isinstance(stated, dict):
        return FrontMatter(source)
    return FrontMatter(source[found.end() :], _named(stated), UNCLOSED)


def _named(stated: dict[object, object]) -> dict[str, object]:
    return {str(key): value for key, value in stated.items()}  # "on" is a truth value of YAML


def _load_yaml(block: str) -> object:
    try:
        stated = yaml.safe_load(block)
    except Exception:  # PyYAML answers odd values, as the 31st of February, with many kinds
        return _yaml_texts(block)
    version = stated.get(VERSION_KEY) if isinstance(stated, dict) else None
    if isinstance(version, int | float | date):
        # As it is written: 1.10 is not 1.1.
        texts = _yaml_texts(block)
        written = texts.get(VERSION_KEY) if isinstance(texts, dict) else None
        stated[VERSION_KEY] = written or str(version)
    return stated


def _yaml_texts(block: str) -> object:
    """Return what YAML holds, with all values as texts; ``None`` if it is malformed."""
    try:
        return yaml.load(block, yaml.BaseLoader)  # noqa: S506 - it makes texts only
    except Exception:  # "\UFFFFFFFF" is a ValueError
        return None


def _load_toml(block: str) -> object:
    try:
        return tomllib.loads(block, parse_float=str)
    except (ValueError, RecursionError):
        return None


def _read_lines(block: str, name: str) -> dict[str, object]:
    """Return the fields of a malformed header that have a line each; empty if it is text.

    It is a header if it begins with a field, no paragraph in it begins with anything else, and
    more of its lines are fields than are not, comments, lists and indented lines aside.
    """
    pattern = YAML_FIELD
    if name == "TOML":
        pattern, block = TOML_FIELD, block.split("\n[", 1)[0]  # fields of its tables are others
    fields: dict[str, object] = {}
    sure, others, after_blank = 0, 0, False
    for line in block.split("\n"):
        if found := pattern.match(line):
            fields[found["key"]] = _read_value(found["value"])
            sure += name == "TOML" or not found["value"][:1].strip()  # "Note:this" may be text
        elif not fields and line.strip():
            return {}
        elif line.strip() and not line[0].isspace() and line[0] != "#":
            if after_blank:
                return {}
            others += line[0] != "-"
        after_blank = not line.strip()
    return fields if sure > others else {}


def _read_value(written: str) -> object:
    value = _yaml_texts(written)  # the strings, lists and dates of TOML are written likewise
    return value if isinstance(value, str | list) else written.strip().strip("\"'")
