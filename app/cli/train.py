"""`fulcrum train`: adapters for the language model and the retrieval modules."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app import factory, home
from app import settings as settings_module
from app.cli.console import DIRECTORY, PATHS, count, example, model_settings, out, require_packages
from foundation.errors import InputError

if TYPE_CHECKING:
    from app.settings import Settings
    from control.forgetting.learned_facts import LearnedFact

PACKAGES = ("datasets", "tensorboardX", "trl")  # of the extra "training"


@click.group()
def train() -> None:
    """Train adapters; a run that was interrupted goes on from its last checkpoint."""


def _settings(given: dict[str, Any]) -> "Settings":
    """The settings of a command that trains a model, once they and its packages are checked."""
    settings = model_settings(given, local=True)
    require_packages("training needs", "training", *PACKAGES)
    return settings


def _options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--smoke", is_flag=True, help="A few steps, to see that all works."),
        click.option("--seed", type=int, default=0, show_default=True, help="Of the draw."),
        click.option(
            "--out",
            "target",
            type=DIRECTORY,
            required=True,
            help="Directory of the run; the adapter goes to its folder adapter.",
        ),
    ):
        command = option(command)
    return command


def _learning(command: Callable[..., None]) -> Callable[..., None]:
    """The options of what trains the language model, whose weights keep what they learned."""
    for option in (
        click.option(
            "--only-record",
            is_flag=True,
            help="Train nothing: write into --out, the directory of an adapter, the record of the "
            "facts that the same command trains it on.",
        ),
        click.option(
            "--without-forgotten",
            is_flag=True,
            help="Leave out examples that state a forgotten fact; see docs/forgetting.md.",
        ),
    ):
        command = option(command)
    return command


def _stating(given: dict[str, Any], without_forgotten: bool) -> Callable[[str], bool] | None:
    """What tells the texts to leave out, if any are."""
    if not without_forgotten:
        return None
    from control.forgetting.learned_facts import stating

    return stating(home.ledger(settings_module.load(**given)).records())


def _record(target: Path, name: str, facts: "Iterable[LearnedFact]") -> None:
    from control.forgetting import learned_facts

    if not (target / "adapter_config.json").exists():
        raise InputError(
            f"--out {target} holds no adapter; with --only-record give the directory of one"
        )
    written = learned_facts.write(target, name, facts)
    out.print(f"the record is in {written}", soft_wrap=True)


_start = click.option(
    "--adapter",
    "start",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Go on from this adapter for one epoch, instead of training a new one for three.",
)
_examples = click.option(
    "--examples",
    "most",
    type=click.IntRange(min=1),
    help="Learn from so many examples at most, drawn at random, which saves time.",
)


@train.command(epilog=example("fulcrum train rewriter --out runs/rewriter"))
@_learning
@_options
@click.pass_obj
def rewriter(
    given: dict[str, Any],
    target: Path,
    seed: int,
    smoke: bool,
    only_record: bool,
    without_forgotten: bool,
) -> None:
    """Query Rewriter+, an adapter for the language model."""
    states = _stating(given, without_forgotten)
    if only_record:
        from training import retrieval_modules, rewrites

        pairs = retrieval_modules.rewriter_pairs(seed, smoke, states)
        _record(target, retrieval_modules.REWRITER, rewrites.learned(pairs))
        return
    settings = _settings(given)

    from training import retrieval_modules

    model = factory.local_model(settings)
    written = retrieval_modules.train_rewriter(model, target, seed, smoke, states)
    out.print(f"the adapter is in {written}; set FULCRUM_REWRITER to use it", soft_wrap=True)


@train.command(
    epilog=example(
        "fulcrum train reader --out runs/reader",
        "fulcrum train reader --data squad.json --out runs/reader",
        "fulcrum train reader --real-documents corpus --out runs/reader",
        "fulcrum train reader --data ours.jsonl --adapter runs/reader/adapter --out runs/second",
        "fulcrum train reader --base microsoft/deberta-v3-base --out runs/larger",
    )
)
@click.option(
    "--data",
    "files",
    multiple=True,
    type=PATHS,
    help="Natural questions besides the packaged ones: SQuAD, or JSON Lines of question, answers "
    "and passage; repeatable.",
)
@click.option(
    "--real-documents",
    "corpus",
    type=DIRECTORY,
    help="Also learn from the training questions over real documents, asked of what a search finds "
    "for them, as many as --examples at most: the directory of their corpus, built there if it is "
    "missing, see docs/evaluation.md. Its index goes to the folder home of --out.",
)
@_start
@_examples
@click.option(
    "--base",
    help="Hugging Face id or directory of another encoder than the packaged one; the whole model, "
    "for --reader, goes to the folder model.",
)
@_options
@click.pass_obj
def reader(
    given: dict[str, Any],
    files: tuple[Path, ...],
    corpus: Path | None,
    start: Path | None,
    most: int | None,
    base: str | None,
    target: Path,
    seed: int,
    smoke: bool,
) -> None:
    """What reads the claims of passages and answers, an adapter for an encoder."""
    settings = _settings(given)

    from app import evaluation_setup
    from training import reader

    search = (
        partial(evaluation_setup.searched_questions, settings, corpus, target) if corpus else None
    )
    written = reader.train(target, files, seed, smoke, start, most, base or None, search)
    kind = "reader" if base else "adapter"
    out.print(f"the {kind} is in {written}", soft_wrap=True)


@train.command(epilog=example("fulcrum train tables --out runs/tables"))
@click.option("--smoke", is_flag=True, help="A few tables, to see that all works.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the order of rows.")
@click.option(
    "--out", "target", type=DIRECTORY, required=True, help="Directory; gets the file tables.json."
)
@click.pass_obj
def tables(given: dict[str, Any], target: Path, seed: int, smoke: bool) -> None:
    """What chooses the cell of a table that answers: weights to lie beside the reader's adapter.

    For the reader in use, see --reader; three minutes on one core.
    """
    settings = model_settings(given, local=True)

    from training import table_cells

    written = table_cells.fit(factory.reader(settings), target, seed, smoke)
    out.print(f"the weights are in {written}", soft_wrap=True)


@train.command(
    epilog=example(
        "fulcrum train support --out runs/support",
        "fulcrum train support --adapter runs/support/adapter --seed 1 --out runs/second",
    )
)
@_start
@_examples
@_options
@click.pass_obj
def support(
    given: dict[str, Any],
    start: Path | None,
    most: int | None,
    target: Path,
    seed: int,
    smoke: bool,
) -> None:
    """What finds the passages that support a sentence, an adapter for the embedding model."""
    _settings(given)

    from training import support

    written = support.train(target, seed, smoke, start, most)
    out.print(f"the adapter is in {written}", soft_wrap=True)


@train.command(
    epilog=example(
        "fulcrum train facts --out runs/facts",
        "fulcrum train facts --adapter runs/facts/adapter --seed 1 --out runs/second",
    )
)
@_start
@_options
@click.pass_obj
def facts(given: dict[str, Any], target: Path, seed: int, smoke: bool, start: Path | None) -> None:
    """What finds out that forgotten facts are asked for or stated, an adapter as above."""
    _settings(given)

    from training import fact_classifier

    written = fact_classifier.train(target, seed, smoke, start)
    out.print(f"the adapter is in {written}", soft_wrap=True)


@train.command(
    epilog=example("fulcrum train average runs/facts/adapter runs/second/adapter --out runs/mean")
)
@click.argument(
    "adapters",
    nargs=-1,
    required=True,
    metavar="ADAPTER ADAPTER ...",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
)
@click.option(
    "--out", "target", type=DIRECTORY, required=True, help="Directory of the new adapter."
)
def average(adapters: tuple[Path, ...], target: Path) -> None:
    """The mean of adapters of reader, support or facts that went on from one another."""
    if len(adapters) == 1:
        raise InputError(f"{adapters[0]} is one adapter; give two or more to average")
    require_packages("training needs", "training", *PACKAGES)

    from training import encoders

    out.print(f"the adapter is in {encoders.average(adapters, target)}", soft_wrap=True)


@train.command(
    name="filter",
    epilog=example(
        "fulcrum train filter --out runs/filter",
        "fulcrum train filter --judge reader --real-documents corpus --out runs/judge",
    ),
)
@click.option(
    "--judge",
    type=click.Choice(["reader", "cosine", "cross-encoder", "model"]),
    default="cross-encoder",
    show_default=True,
    help="What is to judge passages: the reader with cosine and rank, these two alone, a small "
    "cross-encoder, or the language model.",
)
@click.option(
    "--real-documents",
    "corpus",
    type=click.Path(path_type=Path, file_okay=False),
    help="With --judge reader or cosine: the corpus of real documents, whose calibration questions "
    "it is fitted on; see docs/evaluation.md.",
)
@_learning
@_options
@click.pass_obj
def knowledge_filter(
    given: dict[str, Any],
    judge: str,
    corpus: Path | None,
    target: Path,
    seed: int,
    smoke: bool,
    only_record: bool,
    without_forgotten: bool,
) -> None:
    """The Knowledge Filter's judge."""
    if judge != "model" and (only_record or without_forgotten):
        option = "--only-record" if only_record else "--without-forgotten"
        raise InputError(
            f"{option} is for --judge model, the only one that trains the language model"
        )
    if (judge in ("reader", "cosine")) != (corpus is not None):
        raise InputError("--judge reader or cosine goes with --real-documents DIR; give both")
    states = _stating(given, without_forgotten)
    if only_record:
        from training import retrieval_modules, verdicts

        examples = retrieval_modules.filter_examples(seed, smoke, states)
        _record(target, retrieval_modules.FILTER, verdicts.learned(examples))
        return
    settings = _settings(given)

    from app import evaluation_setup
    from evaluation import report
    from training import retrieval_modules

    if corpus is not None:
        logits = factory.answer_logits(settings) if judge == "reader" else None
        found = evaluation_setup.found_passages(settings, corpus, target, logits)
        # Fitted on the built-in questions too, the reader is believed less and finds less.
        fitted_on = {
            name: found[name]
            for name in found
            if logits is None or name != evaluation_setup.BUILT_IN
        }
        written = target / f"filter-{judge}.json"
        retrieval_modules.fit_judge(fitted_on).save(written)
        rows = retrieval_modules.transfer(found)
        passages = sum(row["n"] for row in rows)
        [shown] = report.tables({"n": passages, "tables": {"AUROC": rows}})
        out.print(shown)
        out.print(f"the judge is in {written}", soft_wrap=True)
        return
    if judge == "model":
        model = factory.local_model(settings)
        written = retrieval_modules.train_filter(model, target, seed, smoke, states)
    else:
        written = retrieval_modules.train_cross_encoder(target, seed, smoke)
    out.print(f"the adapter is in {written}", soft_wrap=True)


@train.command(
    epilog=example(
        "fulcrum train knowpo --out runs/knowpo",
        "fulcrum train knowpo --data squad.json --pairs 1000 --out runs/squad",
        "fulcrum --adapter runs/knowpo/adapter ask ...",
    )
)
@click.option(
    "--data",
    type=PATHS,
    help="SQuAD, or JSON Lines of question, answers and passage.  [default: the built-in questions "
    "of the calibration relations]",
)
@count("--sft-examples", help="Answers to follow, first stage.")
@count("--pairs", help="Pairs of the second stage.")
@count("--facts", help="Questions that the model is asked.")
@count("--batch-size", "batch", help="Examples a step.")
@click.option(
    "--ratio",
    "ratios",
    multiple=True,
    metavar="KIND=SHARE",
    help='Share of a kind of example, such as "ignorance, relevant=2"; repeatable.  '
    "[default: see docs/training.md]",
)
@click.option("--any-length", is_flag=True, help="Do not match the lengths of a pair's answers.")
@_learning
@_options
@click.pass_obj
def knowpo(
    given: dict[str, Any],
    data: Path | None,
    ratios: tuple[str, ...],
    any_length: bool,
    target: Path,
    seed: int,
    smoke: bool,
    only_record: bool,
    without_forgotten: bool,
    **sizes: int | None,
) -> None:
    """The preference between passages and memory: SFT, then DPO, on constructed conflicts."""
    from training import corpus, knowpo
    from training import recipe as recipes

    facts = corpus.read(data)
    if states := _stating(given, without_forgotten):
        facts = [fact for fact in facts if not states(fact.text)]
    start = recipes.SMOKE if smoke else recipes.Recipe()
    changed: dict[str, Any] = {name: value for name, value in sizes.items() if value is not None}
    recipe = replace(start, seed=seed, match_lengths=not any_length, **changed)
    recipe = recipes.with_ratios(recipe, ratios)
    if only_record:
        _record(target, knowpo.NAME, knowpo.learned(facts, recipe))
        return
    settings = _settings(given)

    model = factory.local_model(settings)
    written = knowpo.train(
        model, facts, factory.vectors, target, settings.cache / "replies", recipe
    )
    out.print(f"the adapter is in {written}; put it on by --adapter", soft_wrap=True)
