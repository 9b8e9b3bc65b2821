"""A conversation so far, from a file."""

import json
from pathlib import Path

from foundation.errors import InputError


def read(path: Path) -> list[tuple[str, str]]:
    """Questions and answers of a JSON Lines file, oldest first.

    Raises:
        InputError: The file cannot be read, or a line is no turn.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--history {path}: cannot be read ({error}); give JSON Lines") from error
    turns = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                turn = json.loads(line)
                turns.append((str(turn["question"]), str(turn["answer"])))
            except (ValueError, KeyError, TypeError):
                raise InputError(
                    f"--history {path}, line {number}: must be "
                    '{"question": "...", "answer": "..."}'
                ) from None
    return turns
