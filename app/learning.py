"""The commands that train: `fulcrum train`."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from app import settings as settings_module
from app.console import PATHS, example, out
from foundation.errors import ModelError


@click.group()
def train() -> None:
    """Train adapters; a run that was interrupted goes on from its last checkpoint."""


def _options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--smoke", is_flag=True, help="A few steps, to see that all works."),
        click.option("--seed", type=int, default=0, show_default=True, help="Of the draw."),
        click.option(
            "--out",
            "target",
            type=PATHS,
            required=True,
            help="Directory of the run; the adapter goes to its folder adapter.",
        ),
    ):
        command = option(command)
    return command


@train.command(epilog=example("fulcrum train rewriter --out runs/rewriter"))
@_options
@click.pass_obj
def rewriter(given: dict[str, Any], target: Path, seed: int, smoke: bool) -> None:
    """Query Rewriter+, an adapter for the language model."""
    settings = settings_module.load(**given)
    _needs_trl()

    from app import build
    from training import modules

    written = modules.train_rewriter(build.language_model(settings), target, seed, smoke)
    out.print(f"the adapter is in {written}; set FULCRUM_REWRITER to use it", soft_wrap=True)


@train.command(name="filter", epilog=example("fulcrum train filter --out runs/filter"))
@click.option(
    "--judge",
    type=click.Choice(["cross-encoder", "model"]),
    default="cross-encoder",
    show_default=True,
    help="What is to judge passages: a small cross-encoder, or the language model.",
)
@_options
@click.pass_obj
def knowledge_filter(
    given: dict[str, Any], judge: str, target: Path, seed: int, smoke: bool
) -> None:
    """The Knowledge Filter's judge."""
    settings = settings_module.load(**given)
    _needs_trl()

    from app import build
    from training import modules

    if judge == "model":
        written = modules.train_filter(build.language_model(settings), target, seed, smoke)
    else:
        written = modules.train_cross_encoder(target, seed, smoke)
    out.print(f"the adapter is in {written}", soft_wrap=True)


def _needs_trl() -> None:
    if missing := [name for name in ("datasets", "trl") if find_spec(name) is None]:
        raise ModelError(
            f"training needs {' and '.join(missing)}; run: pip install 'fulcrum[training]'"
        )
