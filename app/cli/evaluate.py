"""The commands that measure: `fulcrum eval`."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app import factory
from app.cli.console import PATHS, REPORT, Range, batch_size, count, example, model_settings, out
from control.decoding.options import check_rule
from foundation.errors import InputError

if TYPE_CHECKING:
    from app.settings import Settings
    from control.engines.base import Engine
    from evaluation.datasets.conflicts import Conflict
    from evaluation.datasets.questions import RetrievalQuestion
    from evaluation.report import Layout


JUDGE_MODEL = click.option(
    "--judge",
    metavar="MODEL",
    help="Also ask this language model about answers in which no leak was found, for "
    "descriptions; as --model, and best another one.",
)
PLAIN = "plain"
OWN_STATE = ("ledger", "ledger_key", "ledger_checkpoint", "index")  # never the user's
SHIPPED_ADAPTER = "knowpo"
SOURCE_TASKS = (  # of evaluation.suites.sources, which is too slow to import for --help
    "claims",
    "values",
    "verdicts",
    "memory",
    "versions",
    "versions-beside",
    "documents",
    "files",
    "files-calibration",
    "sentences",
    "corrections",
    "held-out",
    "ramdocs",
)


@click.group(name="eval")
def evaluate() -> None:
    """Measure; each evaluation writes report.json and report.html."""


@evaluate.command(
    epilog=example(
        "fulcrum eval dial --limit 50 --out results/dial",
        "fulcrum eval dial --tune --rule ck_plug --rule grd --out results/tuned",
        "fulcrum eval dial --rule fulcrum --rule ck_plug --tuned results/tuned/tuned.json "
        "--out results/dial",
    )
)
@click.option(
    "--data",
    type=PATHS,
    help="Conflicts as JSON Lines or a published data set, see docs/evaluation.md.  "
    "[default: the built-in ones]",
)
@click.option(
    "--split",
    help='Only items of this split, such as "calibration".  [default: with --tuned, test]',
)
@count("--limit", help="Only so many items, drawn evenly.")
@click.option(
    "--rule", "rules", multiple=True, help="Rule; repeatable.  [default: the rule in use]"
)
@click.option(
    "--alpha",
    "alphas",
    multiple=True,
    type=Range(0, 1),
    help="Setting of the dial for token rules; repeatable.  [default: 0, 0.25, 0.5, 0.75, 1]",
)
@click.option("--adaptive", is_flag=True, help="Also judge alpha auto, in three states.")
@click.option("--trust", is_flag=True, help="Also answer from doubtful and from reliable passages.")
@count(
    "--unknown",
    "unknown_limit",
    help="At most so many facts that the model does not know, drawn evenly.",
)
@click.option(
    "--known-only",
    is_flag=True,
    help="Ask only known facts with their counterfactual passage, which saves time.",
)
@click.option(
    "--calibrate",
    is_flag=True,
    help="Measure the model instead and keep the result for its dial.  "
    "[data: the split calibration of the built-in ones and of those in natural text]",
)
@click.option(
    "--tune",
    is_flag=True,
    help="Choose the options of token rules for this model instead: all rules, or those of "
    "--rule.  [data: as of --calibrate]",
)
@click.option(
    "--tuned",
    type=PATHS,
    help="Use the options that --tune wrote to this file; other rules are as published.",
)
@click.option(
    "--pool",
    "pools",
    type=PATHS,
    multiple=True,
    help="With --calibrate: the --out of another model's, for the calibration for any model; "
    "repeatable.",
)
@batch_size(16)
@REPORT
@click.pass_obj
def dial(
    given: dict[str, Any],
    data: Path | None,
    split: str | None,
    limit: int | None,
    rules: tuple[str, ...],
    alphas: tuple[float, ...],
    adaptive: bool,
    unknown_limit: int | None,
    known_only: bool,
    trust: bool,
    calibrate: bool,
    tune: bool,
    tuned: Path | None,
    pools: tuple[Path, ...],
    batch_size: int,
    target: Path,
) -> None:
    """How far the dial moves answers between passages and memory."""
    for rule in rules:
        check_rule(rule)
    if calibrate + tune + (tuned is not None) > 1:
        raise InputError("--calibrate, --tune and --tuned are three runs; give one of them")
    settings = model_settings(given)

    from evaluation.datasets import conflicts

    if data is None and split is None and (calibrate or tune):
        split, items = "calibration", conflicts.for_calibration(limit)
    else:
        split = "test" if data is None and split is None and tuned else split
        data = data or conflicts.BUILT_IN_CONFLICTS
        items = conflicts.spread(conflicts.conflicts(data, split), limit)
    named = {"data": data.name if data else "built-in and natural", "split": split}

    from evaluation import report
    from evaluation.suites import dial as dial_suite

    model = factory.language_model(settings)
    if calibrate:
        _calibrate(settings, model, items, target, batch_size, pools)
        return
    from evaluation.suites import tuning

    if tune:
        result = tuning.run(model, items, target, rules, batch_size, unknown_limit)
        _report(result | named, target, hidden=[tuning.TRIED])
        out.print(f"options: {target / tuning.TUNED}", soft_wrap=True)
        return
    options = tuning.read(tuned, model) if tuned else None
    result = dial_suite.run(
        model,
        items,
        target,
        rules,
        batch_size,
        adaptive,
        factory.calibration(settings, model),
        sorted(alphas) or dial_suite.ALPHAS,
        known_only,
        trust,
        unknown_limit,
        reader=factory.reader(settings),
        options=options,
    )
    result |= named | {"tuned": tuned.name if tuned else None}
    report.write(result, target, "dial")
    out.print(report.dial_table(result))
    out.print(f"report: {target / 'report.html'}")


def _calibrate(
    settings: "Settings",
    model: "Engine",
    items: "Sequence[Conflict]",
    target: Path,
    batch_size: int,
    pools: Sequence[Path],
) -> None:
    from control.conflict import calibration as calibrations
    from control.engines.transformers import LanguageModel
    from evaluation.suites import calibration, observations

    others = {path.name: observations.read(path) for path in pools}
    bars = [calibrations.load(path / factory.CALIBRATION).memory_bar for path in pools]
    reader = factory.reader(settings)
    observed = observations.run(model, items, target, batch_size, reader)
    documents = observations.of_documents(model, target, batch_size, reader, len(items))
    bar = observations.memory_bar(model, reader)
    name = model.name
    measured = calibration.fit(model.identity, name, observed, memory_bar=bar, documents=documents)
    pooled = {model.name: observed, **others}
    highest = max([bar, *bars])
    calibration.fit_any(pooled, memory_bar=highest).save(target / "any.json")
    if not isinstance(model, LanguageModel) and model.capabilities.scores:
        drafts = calibration.fit_any(pooled, drafts_only=True, memory_bar=highest)
        drafts.save(target / "any-drafts.json")
    kept = factory.keep(measured, model, settings, target)
    out.print(calibration.table(measured))
    for source, came_to in calibration.transfer(observed, bar).items():
        told = "  ".join(f"{name} {value}" for name, value in came_to.items())
        out.print(f"fitted without {source}, on {source}: {told}")
    out.print(f"the dial of {model.name} now uses {kept}", soft_wrap=True)


@evaluate.command(
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
            result = found_claims.report(factory.reader(settings), modules, items)
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
    _report(result | {"split": split if data is None else None}, target)


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


@evaluate.command(
    epilog=example(
        "fulcrum eval forgetting --facts 100 --out results/forgetting",
        "fulcrum eval forgetting --data restor_facts.json --data restor_mix_a0.json --out results",
        "fulcrum eval forgetting --measure subjects --limit 500 --out results/subjects",
        "fulcrum eval forgetting --measure undoing --limit 50 --out results/undoing",
        "fulcrum eval forgetting --measure router --out results/router",
        "fulcrum eval forgetting --judge model-1.5b.gguf --facts 20 --out results/judged",
    )
)
@click.option(
    "--data",
    "paths",
    type=PATHS,
    multiple=True,
    help="Facts with probes and neighbours as JSON Lines, or the files of RESTOR or TOFU; "
    "repeatable, see docs/evaluation.md.  [default: the built-in facts]",
)
@count("--limit", help="Only so many facts, drawn evenly.")
@count(
    "--past",
    multiple=True,
    help="Leave out the facts that this --limit would draw, to measure on others; repeatable, "
    "each time of those that are left.",
)
@count("--facts", help="Only so many of the facts that leak without forgetting.")
@count(
    "--baselines", default=1000, help="Probes, drawn at random, that the baselines answer.", least=0
)
@count(
    "--sampled",
    default=200,
    help="Probes, drawn at random, that are answered 20 times at temperature 1.",
    least=0,
)
@click.option("--unrouted", is_flag=True, help="Also answer the baselines' probes unrouted.")
@click.option(
    "--measure",
    type=click.Choice(["leaks", "subjects", "undoing", "guesses", "router", "classifier"]),
    default="leaks",
    show_default=True,
    help="What leaks and what suffers; whether what else is asked of many facts' subjects suffers; "
    "whether adding and removing restores the old answers; whether right guesses are told from "
    "wrong ones; the router alone, on wordings and relations that it was not trained on; or the "
    "classifier alone, on facts that it was not trained on.",
)
@count("--rounds", default=1000, help="Adds and removes of --measure undoing.")
@click.option(
    "--rule",
    default=PLAIN,
    show_default=True,
    help="Rule to decode by: the same guard watches all of them, and plain RAG is the quickest.",
)
@JUDGE_MODEL
@batch_size(32)
@REPORT
@click.pass_obj
def forgetting(
    given: dict[str, Any],
    paths: tuple[Path, ...],
    limit: int | None,
    past: tuple[int, ...],
    facts: int | None,
    baselines: int,
    sampled: int,
    unrouted: bool,
    measure: str,
    rounds: int,
    rule: str,
    judge: str | None,
    batch_size: int,
    target: Path,
) -> None:
    """What is forgotten stays forgotten, however it is asked, and nothing beside it suffers."""
    check_rule(rule)
    if judge is not None and measure != "leaks":
        raise InputError(
            f"--judge with --measure {measure}: it judges leaks; leave one of them out"
        )
    settings = _own_settings(given, target)
    judge_settings = None if judge is None else model_settings({**given, "model": judge})

    from app import evaluation_setup
    from evaluation.datasets import forgettable_facts
    from evaluation.suites import fact_classifier, guesses, leakage, reversibility, router
    from evaluation.suites import forgetting as forgetting_suite

    if measure == "router":
        result = router.router_report(
            evaluation_setup.router_factory(settings), facts or router.FACTS
        )
        result |= {"model": "", "data": "built-in", "split": "test"}
        _report(result, target, announce=False)
        return
    if measure == "classifier":
        result = fact_classifier.report(factory.fact_classifier())
        _report(result | {"model": "", "data": "held out of the training"}, target, announce=False)
        return
    requests = forgettable_facts.read(paths, target, limit, past)
    system, ledger = evaluation_setup.guarded_assistant(settings, requests.documents, rule)
    name = system.assistant.model.name
    data = {"model": name, "data": ", ".join(path.name for path in paths) or "built-in"}
    if measure == "undoing":
        result = reversibility.run(system, ledger, requests.items, rounds) | data
        shown = {key: value for key, value in result.items() if isinstance(value, int | float)}
        _report(result | {"n": rounds, "tables": {"adding and removing": [shown]}}, target)
        return
    if measure == "guesses":
        as_served = replace(system, assistant=replace(system.assistant, even_time=True))
        _report(guesses.run(as_served, ledger, requests.items) | data, target)
        return
    run = (f"{name}, {rule}", system, ledger, requests, target)
    if measure == "subjects":
        results = forgetting_suite.run_subjects(*run, batch_size)
        _report(leakage.neighbour_report(results) | data, target)
    else:
        plan = forgetting_suite.ForgettingPlan(facts, baselines, sampled, unrouted=unrouted)
        results = forgetting_suite.run(*run, plan, batch_size)
        judged = evaluation_setup.leak_judge(judge_settings)
        report = leakage.report(results, judged) | data | {"judge": judge}
        _report(report, target, "forgetting")


@evaluate.command(
    epilog=example(
        "fulcrum eval judge --out results/judge",
        "fulcrum eval judge --judge model-1.5b.gguf --limit 100 --out results/judge-model",
    )
)
@click.option(
    "--data",
    type=PATHS,
    help="Labelled answers as JSON Lines, see docs/evaluation.md.  [default: the built-in ones]",
)
@click.option(
    "--split",
    type=click.Choice(["development", "test"]),
    default="test",
    show_default=True,
    help="The bars of the judge were set on development.",
)
@count("--limit", help="Only so many answers, drawn evenly.")
@JUDGE_MODEL
@REPORT
@click.pass_obj
def judge(
    given: dict[str, Any],
    data: Path | None,
    split: str,
    limit: int | None,
    judge: str | None,
    target: Path,
) -> None:
    """Whether the judge of leaks is right, on answers that a person labelled."""
    settings = None if judge is None else model_settings({**given, "model": judge})

    from app import evaluation_setup
    from evaluation.datasets import leak_pairs
    from evaluation.datasets.conflicts import spread
    from evaluation.suites import judging

    pairs = spread(leak_pairs.read(data or leak_pairs.BUILT_IN, split), limit)
    with_model = None if settings is None else evaluation_setup.leak_judge(settings)
    result = judging.run(pairs, with_model)
    result |= {"model": judge or "", "data": data.name if data else "built-in", "split": split}
    _report(result, target)


@evaluate.command(
    epilog=example(
        "fulcrum eval preference --limit 600 --out results/preference",
        "fulcrum eval preference --trained sft=runs/knowpo/sft --trained dpo=runs/knowpo/adapter "
        "--out results/preference",
        "fulcrum eval preference --data counterfact.json --limit 400 --out results/counterfact",
    )
)
@click.option(
    "--data",
    type=PATHS,
    help="Conflicts with a true passage, CounterFact or RAMDocs, see docs/evaluation.md.  "
    "[default: the built-in conflicts]",
)
@click.option("--split", default="test", show_default=True, help="Of the built-in conflicts.")
@count("--limit", help="Only so many facts, drawn evenly.")
@count("--known", help="At most so many of the facts that the model knows are asked with passages.")
@count("--unknown", help="And of those that it does not know.", least=0)
@click.option(
    "--trained",
    multiple=True,
    metavar="NAME=DIR",
    help="Adapter to measure; repeatable, each is tested against the one before it.  "
    "[default: that of --adapter, else the shipped one]",
)
@click.option("--no-dial", is_flag=True, help="Leave out the answers with the dial.")
@REPORT
@click.pass_obj
def preference(
    given: dict[str, Any],
    data: Path | None,
    split: str,
    limit: int | None,
    known: int | None,
    unknown: int | None,
    trained: tuple[str, ...],
    no_dial: bool,
    target: Path,
) -> None:
    """Whether answers follow passages that bear on the question, and only those."""
    settings = model_settings(given, local=True)
    named = _named(settings, trained)

    from control.engines import adapters
    from evaluation.datasets import contexts
    from evaluation.suites import preference as preference_suite

    items = contexts.read(data, split, limit, factory.vectors)
    model = factory.local_model(settings.model_copy(update={"adapter": None}))
    loaded = [(name, adapters.read(model, folder)) for name, folder in named]
    result = preference_suite.run(
        model,
        items,
        loaded,
        factory.calibration(settings, model),
        target,
        preference_suite.PreferencePlan(known, unknown, dialled=not no_dial),
    )
    result |= {"model": model.name, "data": items.name, "split": None if data else split}
    _report(result, target)


@evaluate.command(
    epilog=example(
        "fulcrum eval sources --out results/sources",
        "fulcrum eval sources --task claims --task verdicts --limit 20 --out results/sources",
        "fulcrum eval sources --task ramdocs --data ramdocs_test.jsonl --out results/ramdocs",
    )
)
@click.option(
    "--task",
    "tasks",
    multiple=True,
    type=click.Choice(SOURCE_TASKS),
    help="What is measured; repeatable, see docs/evaluation.md.  [default: all but corrections, "
    "files-calibration, held-out and ramdocs]",
)
@click.option("--data", type=PATHS, help="The file of RAMDocs, for --task ramdocs.")
@count("--limit", help="Only so many records of each task, drawn evenly.")
@batch_size(8)
@REPORT
@click.pass_obj
def sources(
    given: dict[str, Any],
    tasks: tuple[str, ...],
    data: Path | None,
    limit: int | None,
    batch_size: int,
    target: Path,
) -> None:
    """Whether what each source claims is found, told and followed rightly."""
    settings = _own_settings(given, target)
    if (data is None) == ("ramdocs" in tasks):
        raise InputError("--data and --task ramdocs go together; give both or neither")

    from app import evaluation_setup
    from evaluation.suites import sources as sources_suite

    tasks = tasks or sources_suite.USUAL_TASKS
    system = evaluation_setup.source_system(settings, corpus="documents" in tasks)
    run = sources_suite.Run(system, target, limit, batch_size)
    result = sources_suite.run(run, tasks, data)
    result |= {"model": system.assistant.model.name, "data": data.name if data else "built-in"}
    _report(result | {"split": None}, target, hidden=sources_suite.HIDDEN)


@evaluate.command(
    epilog=example(
        "fulcrum eval harness",
        'lm_eval run --include_path "$(fulcrum eval harness)" --tasks fulcrum_conflicts_passage',
    )
)
def harness() -> None:
    """Print the directory of the tasks for EleutherAI's lm-evaluation-harness.

    They ask the conflicts of `eval dial` of any model that the harness runs, see
    docs/evaluation.md; this command itself measures nothing.
    """
    from evaluation.harness import DIRECTORY

    click.echo(DIRECTORY)


def _own_settings(given: dict[str, Any], target: Path) -> "Settings":
    """The settings with a home in the directory of the report, and nothing of the user's state."""
    settings = model_settings({**given, "home": target / "home"})
    return settings.model_copy(update=dict.fromkeys(OWN_STATE))


def _named(settings: "Settings", trained: tuple[str, ...]) -> list[tuple[str, Path]]:
    """The adapters to measure, by name."""
    if not trained:
        folder = settings.adapter or factory.ADAPTERS / SHIPPED_ADAPTER
        return [(folder.name, folder)]
    pairs = []
    for one in trained:
        name, _, given = one.partition("=")
        if not (name and given):
            raise InputError(f"--trained {one!r}: give a name and a directory, as sft=runs/k/sft")
        pairs.append((name, Path(given).expanduser()))
    if len({name for name, _ in pairs}) < len(pairs):
        raise InputError("--trained: two adapters have the same name; give each its own")
    return pairs


def _report(
    result: dict[str, Any],
    target: Path,
    layout: "Layout" = "tables",
    announce: bool = True,
    hidden: Collection[str] = (),
) -> None:
    """Write the report and print its tables, but for the long ones that are hidden."""
    from evaluation import report

    report.write(result, target, layout)
    shown = {name: rows for name, rows in result["tables"].items() if name not in hidden}
    for table in report.tables(result | {"tables": shown}):
        out.print(table)
    if announce:
        out.print(f"report: {target / 'report.html'}")
