"""The fact tables, the files built from them and the script that builds them."""

from pathlib import Path

DIRECTORY = Path(__file__).parent
