"""reStructuredText to HTML by docutils, with the directives and roles that only Sphinx knows."""

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.core import publish_parts
from docutils.parsers.rst import Directive, directives, roles
from docutils.parsers.rst.languages import en

from foundation.errors import DocumentError

SILENT = 5  # docutils' level above all messages
SETTINGS = {
    "report_level": SILENT,
    "halt_level": SILENT,
    "file_insertion_enabled": False,  # no include:: of another file
    "raw_enabled": False,
    "doctitle_xform": False,  # the title stays a heading of the text
    "initial_header_level": 1,
    "input_encoding": "unicode",
    "syntax_highlight": "none",
    "embed_stylesheet": False,
    "stylesheet_path": None,
}
DIRECTIVE = re.compile(
    r"^[ \t]*\.\.[ \t]+(?:\|[^|\n]+\|[ \t]+)?([\w:.+-]+?)::(?:[ \t]|$)", re.MULTILINE
)
ROLE = re.compile(r":([\w:.+-]+):`|`:([\w:.+-]+):")
OPTION = re.compile(r"^:[\w-]+:(?:\s|$)")
ROLE_TARGET = re.compile(r"\s*<[^<>]*>$")
# Docutils has the first two, but refuses options of Sphinx's.
CODE = {"code", "code-block", "sourcecode", "highlight", "prompt", "doctest"}
UNREAD = {"toctree", "image", "index", "include", "literalinclude", "currentmodule", "raw"}


class KeptDirective(Directive):
    """A directive that docutils does not know: its argument and content are kept as text."""

    optional_arguments = 1
    final_argument_whitespace = True
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the nodes of the argument and of the content."""
        name = self.name.lower().rpartition(":")[2]
        if name in UNREAD:
            return []
        if name in CODE:
            text = "\n".join(self.content)
            return [nodes.literal_block(text, text)]
        kept: list[nodes.Node] = []
        stated = self.arguments[0].split("\n") if self.arguments else []
        argument = " ".join(line for line in stated if not OPTION.match(line.strip()))
        if argument:
            kept.append(nodes.paragraph("", argument))
        body = nodes.container()
        self.state.nested_parse(self.content, self.content_offset, body)
        return [*kept, *body.children]


def to_html(path: Path, source: str) -> str:
    """Return the body of a document as HTML.

    Args:
        path: The file, for messages.
        source: Its text.

    Raises:
        DocumentError: docutils cannot parse it.
    """
    for name in {name.lower() for name in DIRECTIVE.findall(source)}:
        if name in CODE | UNREAD or name not in en.directives:
            directives.register_directive(name, KeptDirective)
    for name in {(before or after).lower() for before, after in ROLE.findall(source)}:
        if name not in en.roles:
            roles.register_local_role(name, _kept_role)
    try:
        parts = publish_parts(source, writer="html5", settings_overrides=SETTINGS)
    except Exception as error:  # docutils answers odd input with many kinds of exception
        raise DocumentError(
            f"{path} cannot be parsed as reStructuredText; give its text as .txt"
        ) from error
    return str(parts["body"])


def _kept_role(
    name: str, rawtext: str, text: str, lineno: int, inliner: Any, *_: Any
) -> tuple[list[nodes.Node], list[nodes.Node]]:
    """A role that docutils does not know: its text without the target."""
    shown = ROLE_TARGET.sub("", text) or text
    return [nodes.inline(rawtext, shown.lstrip("~!"))], []
