"""Conflicts as tasks of EleutherAI's lm-evaluation-harness; `fulcrum eval harness` says where."""

from pathlib import Path

DIRECTORY = Path(__file__).parent
