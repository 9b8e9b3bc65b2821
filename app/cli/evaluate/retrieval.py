"""How retrieval is measured: `fulcrum eval retrieval`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app import factory
from app.cli.console import PATHS, REPORT, count, example, model_settings
from app.cli.evaluate.report import write_report
from foundation.errors import InputError

if TYPE_CHECKING:
    from evaluation.datasets.questions import RetrievalQuestion


@click.command(
    epilog=example(
        "fulcrum eval retrieval --limit 150 --out results/retrieval",
        "fulcrum eval retrieval --measure reservoir --out results/reservoir",
        "fulcrum eval retrieval --real-documents corpus --out results/real-documents",
        "fulcrum eval retrieval --real-documents corpus --measure claims --out results/claims",
    )
)
@click.option(
    "--data",
    type=PATHS,
    help="RAMDocs, or questions with their documents in its form.  [default: the built-in ones]",
)
@click.option(
    "--real-documents",
    "corpus",
    type=click.Path(path_type=Path, file_okay=False),
    help="Ask about real documents: the directory of their corpus, built there from Debian and "
    "Python packages where it is missing, see docs/evaluation.md.",
)
@click.option(
    "--split",
    type=click.Choice(["test", "calibration", "training"]),
    default="test",
    show_default=True,
    help="Of the built-in questions, or the real ones, which alone have training.",
)
@count("--limit", help="Only so many of each kind.")
@click.option("--kind", "kinds", multiple=True, help="Only this kind of question; repeatable.")
@click.option(
    "--arm",
    "arms",
    multiple=True,
    help='With --measure modules: only this arm, such as "read" or "all"; repeatable.',
)
@click.option(
    "--measure",
    type=click.Choice(["modules", "filter", "reservoir", "claims"]),
    default="modules",
    show_default=True,
    help="What each module adds; how well the filter judges; what the reservoir saves; or how "
    "often the reader's surest claim of what is found is right.",
)
@click.option(
    "--max-new-tokens",
    type=click.IntRange(1),
    default=32,
    show_default=True,
    help="With --measure modules: longest answer, in tokens.",
)
@REPORT
@click.pass_obj
def retrieval(
    given: dict[str, Any],
    data: Path | None,
    corpus: Path | None,
    split: str,
    limit: int | None,
    kinds: tuple[str, ...],
    arms: tuple[str, ...],
    measure: str,
    max_new_tokens: int,
    target: Path,
) -> None:
    """What rewriter, filter, reservoir and trigger add to retrieval."""
    settings = model_settings({**given, "home": target / "home"})

    from evaluation.datasets import questions
    from evaluation.suites import retrieval as retrieval_suite

    if data is not None and corpus is not None:
        raise InputError("--data and --real-documents: give one of them")
    retrieval_suite.check_arms(arms, measure)
    if measure == "claims" and "reader" in settings.without:
        raise InputError("--measure claims needs the reader; take it out of FULCRUM_WITHOUT")
    if corpus is None:
        items = _of_kinds(_other_questions(data, split, limit), kinds)
        documents = [questions.PASSAGES if data is None else questions.corpus(data, target)]

    from app import evaluation_setup
    from evaluation.datasets import real_documents
    from evaluation.suites import filter as filter_suite
    from evaluation.suites import found_claims
    from evaluation.suites import reservoir as reservoir_suite

    index = factory.passage_index(settings)
    if corpus is not None:
        real_documents.build(corpus)
        documents = real_documents.folders(corpus, split)
    evaluation_setup.ingest(index, documents)
    if corpus is not None:
        every = real_documents.questions(split, corpus, index.all_nodes(), limit)
        items = _of_kinds([one for one in every if one.answers or measure == "claims"], kinds)
    model = factory.language_model(settings)
    if measure == "filter":
        judges = evaluation_setup.filter_judges(settings, model)
        result = filter_suite.filter_report(judges, items, index)
    else:
        modules = evaluation_setup.retrieval_modules(settings, index, model)
        if measure == "claims":
            assistant = factory.assistant(settings, model, index=index)
            result = found_claims.report(assistant.read_passages, modules, items)
        elif measure == "reservoir":
            asked = (
                real_documents.asked_again(items, split)
                if corpus
                else reservoir_suite.build_questions(split)
            )
            result = reservoir_suite.reservoir_report(model, modules, asked, target)
        else:
            result = retrieval_suite.modules_report(
                model, modules, items, target, arms, max_new_tokens
            )
    name = "real documents" if corpus else data.name if data else "built-in"
    result |= {"model": model.name, "data": name}
    write_report(result | {"split": split if data is None else None}, target)


def _other_questions(data: Path | None, split: str, limit: int | None) -> "list[RetrievalQuestion]":
    """RAMDocs, or the built-in questions."""
    from evaluation.datasets import questions

    if data is not None:
        return questions.ramdocs(data, limit)
    items = questions.built_in(split, limit)
    if not items:
        raise InputError(f"--split {split}: the built-in questions have test and calibration")
    return items


def _of_kinds(
    items: "Sequence[RetrievalQuestion]", kinds: Sequence[str]
) -> "list[RetrievalQuestion]":
    there = dict.fromkeys(item.kind for item in items)
    if unknown := set(kinds) - set(there):
        raise InputError(f"--kind {min(unknown)}: there is {', '.join(there)}")
    return [item for item in items if not kinds or item.kind in kinds]
