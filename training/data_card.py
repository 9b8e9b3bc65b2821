"""The cards beside trained things: what the data are, and what came of training on them."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from foundation.files import replacing
from training.pairs import ExampleSet, Length, PreferenceExample

EXAMPLES = 10


def write(
    folder: Path,
    sft: ExampleSet,
    dpo: ExampleSet,
    knows: Mapping[str, tuple[int, int]],
    length: Length,
) -> None:
    """Write the data of both stages as JSON Lines, and their card.

    Args:
        folder: Of the data.
        sft: Answers to follow.
        dpo: Pairs.
        knows: By part of the corpus: how many facts the model knows, and of how many.
        length: Of a text, in tokens.
    """
    with replacing(folder) as new:
        new.mkdir()
        for name, made in (("sft", sft), ("dpo", dpo)):
            lines = [json.dumps(asdict(each), ensure_ascii=False) for each in made.examples]
            (new / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        text = "".join(_lines(sft, dpo, knows, length))
        (new / "README.md").write_text(text, encoding="utf-8")


def _lines(
    sft: ExampleSet, dpo: ExampleSet, knows: Mapping[str, tuple[int, int]], length: Length
) -> Sequence[str]:
    lines = ["# Data of a KnowPO run\n\n", "Facts asked closed-book, and how many are known:\n\n"]
    lines += [f"- {part}: {known} of {count}\n" for part, (known, count) in knows.items()]
    for title, made in (("Answers to follow (SFT)", sft), ("Pairs (DPO)", dpo)):
        lines += [f"\n## {title}\n\n", *_table(made.examples, length)]
        lines += [f"\nLeft out, {reason}: {count}.\n" for reason, count in made.left_out.items()]
    lines.append("\n## Ten examples\n\n")
    for example in [*sft.examples[: EXAMPLES // 2], *dpo.examples[: EXAMPLES // 2]]:
        lines.append(f"**{example.kind}**: {example.question}\n\n")
        lines += [f"[{place}] {text}\n\n" for place, text in enumerate(example.passages, start=1)]
        lines.append(f"- chosen: {example.chosen}\n")
        lines += [f"- rejected: {example.rejected}\n"] if example.rejected else []
        lines.append("\n")
    return lines


def _table(examples: Sequence[PreferenceExample], length: Length) -> list[str]:
    lines = [
        "| kind | count | tokens chosen | tokens rejected | rejected / chosen |\n",
        "|---|---:|---:|---:|---:|\n",
    ]
    for kind, count in Counter(example.kind for example in examples).items():
        these = [example for example in examples if example.kind == kind]
        chosen = float(np.mean([length(example.chosen) for example in these]))
        rejected = float(np.mean([length(example.rejected) for example in these]))
        shown = (f"{rejected:.1f}", f"{rejected / chosen:.2f}") if rejected else ("", "")
        lines.append(f"| {kind} | {count} | {chosen:.1f} | {shown[0]} | {shown[1]} |\n")
    return lines


def adapter_card(run: Path, told: Mapping[str, Any], base: str, asked: int, seed: int) -> None:
    """Finish a run's adapter: its card, and the curve along training as a picture.

    Args:
        run: Directory of the run.
        told: Of each stage: examples, minutes, examples a second, peak memory, the kept step and
            the curve ``[(step, scores)]``.
        base: Name of the base model.
        asked: Facts of the corpus.
        seed: Of data and training.
    """
    adapter = run / "adapter"
    rows = "".join(
        f"| {stage} | {row['examples']} | {row['minutes']:.0f} | {row['rate']:.2f} | "
        f"{row['peak_gb']:.1f} | {row['kept_step']} | {row['scores']['R_Ad']:.0f} | "
        f"{row['scores']['R_Ro']:.0f} | {row['scores']['kept']:.0f} | "
        f"{row['scores']['refusal']:.0f} |\n"
        for stage, row in told.items()
    )
    _plot(told, adapter / "curve.png")
    text = CARD.format(base=base, seed=seed, asked=asked, rows=rows)
    with replacing(adapter / "README.md") as new:
        new.write_text(text, encoding="utf-8")


def _plot(told: Mapping[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    styles = {"R_Ad": "o-", "R_Ro": "s--", "kept": "^:", "refusal": "d-."}
    start = 0
    for stage, row in told.items():
        steps = [start + step for step, _ in row["curve"]]
        for number, (name, style) in enumerate(styles.items()):
            values = [scores[name] for _, scores in row["curve"]]
            label = name if stage == next(iter(told)) else None
            axes.plot(steps, values, style, color=f"C{number}", label=label)
        start = max(steps, default=start)
        axes.axvline(start, color="0.8", linewidth=1)
        axes.annotate(stage.upper(), (start, 101), ha="right", fontsize=8, color="0.4")
    axes.set(xlabel="step", ylabel="percent of development facts", ylim=(0, 105))
    figure.legend(loc="outside right center", fontsize=8)
    figure.savefig(path, dpi=110)


CARD = """\
# KnowPO adapter of {base}

Written by `fulcrum train knowpo --out DIR --seed {seed}`: low-rank adaptation in two stages, on
facts of their own each, of a corpus of {asked:,} questions. Which data, with ten examples: the
folder `data` of the run. R_Ad, R_Ro, known facts still answered closed-book (kept) and refusal are
those of facts held out to choose the adapter on, in percent; what it is worth on others:
`fulcrum eval preference`.

| stage | examples | minutes | a second | peak GB | step kept | R_Ad | R_Ro | kept | refusal |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|
{rows}
![R_Ad, R_Ro, kept and refusal along training](curve.png)
"""
