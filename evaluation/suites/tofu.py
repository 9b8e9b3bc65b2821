"""Forget quality and model utility of TOFU (Maini et al. 2024, arXiv:2401.06121, section 2.2).

There a model is trained on the authors and made to forget some; the measure is a model that was
trained without them. Here the answers come from documents, so the measure is the same assistant
without the documents about the forgotten authors. All numbers are as the authors' code counts them
(`aggregate_eval_stat.py`): its truth ratio takes the geometric mean of the wrong answers'
probabilities, where the paper has the arithmetic one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from rouge_score.rouge_scorer import RougeScorer
from scipy import stats

from control.forgetting.aliases import with_aliases
from control.forgetting.ledger import Ledger
from control.forgetting.record import Record
from evaluation import metrics
from evaluation.datasets.tofu import FORGET, RETAIN, Benchmark, TofuQuestion
from evaluation.runner import Rows, digest
from evaluation.suites.replies import GuardedReply, Mode, ProbeQuery

BEFORE, NEVER, AFTER = "all documents", "never had those documents", "forgotten"
MEASURES = ("probability", "ROUGE-L", "truth ratio")
LONGEST = 100  # tokens of an answer; the longest of TOFU has 94 of the packaged model's

Values = NDArray[np.float64]


class TofuSystem(Protocol):
    """The system under test."""

    def __call__(
        self, queries: Sequence[ProbeQuery], mode: Mode, samples: int = 1
    ) -> Sequence[Sequence[GuardedReply]]:
        """Replies to each query."""

    def log_probs(self, query: ProbeQuery, answers: Sequence[str], mode: Mode) -> list[float]:
        """The mean log-probability of the tokens of each answer, in nats."""


@dataclass(frozen=True)
class TofuRow:
    """What one arm says to a question, and how likely it finds given answers.

    Attributes:
        arm: Its name.
        question: The question's place.
        text: The reply.
        refused: Whether the system refused.
        answer: Mean log-probability of the answer's tokens.
        told: The same of the answer in other words.
        wrong: Of each wrong answer.
    """

    arm: str
    question: int
    text: str
    refused: bool
    answer: float
    told: float
    wrong: list[float]

    @property
    def key(self) -> tuple[str, int]:
        """Arm and question."""
        return self.arm, self.question

    @property
    def truth_ratio(self) -> float:
        """How much likelier the answer in other words is than a wrong one."""
        return float(np.exp(self.told - np.mean(self.wrong)))


def run(
    name: str,
    system: TofuSystem,
    without: TofuSystem,
    ledger: Ledger,
    benchmark: Benchmark,
    target: Path,
    batch_size: int = 32,
) -> dict[str, Any]:
    """Ask all questions before the authors are forgotten and after, and of what never had them.

    Rows are appended to ``target/rows.jsonl``; a second call goes on from there. A refusal has no
    probabilities: those of the last arm are of the prompt that the question would have had, so they
    say what is left of the authors in what the model reads.

    Args:
        name: Of the model and of how it decodes.
        system: The system under test, over all documents; it follows the ledger.
        without: The same over the documents of the other authors.
        ledger: One of its own, empty or left by an interrupted run.
        benchmark: Questions, and the authors to be forgotten.
        target: Directory of the report.
        batch_size: Questions at a time.

    Returns:
        By arm, ``forget_quality``, the p-value that its truth ratios on the forgotten authors are
        distributed as those of what never had the documents (Kolmogorov and Smirnov), and
        ``model_utility``, in [0, 1]; ``tables``.

    Raises:
        DataError: ``target`` holds rows of another run.
    """
    asked = list(enumerate(benchmark.questions))
    rows: Rows[tuple[str, int], TofuRow] = Rows.of_dataclass(
        target / "rows.jsonl",
        {"model": name, "run": digest(benchmark)},
        TofuRow,
        lambda row: row.key,
    )

    def complete(arm: str, which: TofuSystem, mode: Mode, scored: Mode) -> None:
        rows.complete(
            asked,
            lambda each: [(arm, each[0])],
            partial(_rows, arm, which, mode, scored),
            batch_size,
            length=lambda each: len(each[1].question),
            title=arm,
            unit="questions",
        )

    complete(BEFORE, system, "off", "off")
    complete(NEVER, without, "off", "off")
    ledger.add([with_aliases(Record(subject=name, scope="subject")) for name in benchmark.authors])
    complete(AFTER, system, "guarded", "unrouted")
    return report(benchmark.questions, rows) | {"n_authors": len(benchmark.authors)}


def _rows(
    arm: str,
    system: TofuSystem,
    mode: Mode,
    scored: Mode,
    batch: Sequence[tuple[int, TofuQuestion]],
) -> Mapping[tuple[str, int], TofuRow]:
    replies = system([ProbeQuery(each.question) for _, each in batch], mode)
    rows = []
    for (place, each), [reply] in zip(batch, replies, strict=True):
        answers = (each.answer, each.told, *each.wrong)
        own, told, *wrong = system.log_probs(ProbeQuery(each.question), answers, scored)
        rows.append(TofuRow(arm, place, reply.text, reply.refused, own, told, wrong))
    return {row.key: row for row in rows}


def report(
    questions: Sequence[TofuQuestion], rows: Mapping[tuple[str, int], TofuRow]
) -> dict[str, Any]:
    """The numbers of `run`."""
    parts = list(dict.fromkeys(each.part for each in questions))
    of_part = {
        part: [at for at, each in enumerate(questions) if each.part == part] for part in parts
    }
    utility, quality = {}, {}
    table, summary = [], []
    for arm in (BEFORE, NEVER, AFTER):
        means = []
        for part, places in of_part.items():
            own = [rows[arm, at] for at in places]
            measured = _measured(part, [questions[at] for at in places], own)
            values = {name: metrics.percent(each) for name, each in measured.items()}
            table.append(
                {"documents": arm, "part": part, "n": len(own)}
                | values
                | {"refused": 100 * sum(row.refused for row in own) / len(own)}
                | {"ci": {n: metrics.interval(metrics.percent, v) for n, v in measured.items()}}
            )
            if part != FORGET:
                means += [value / 100 for value in values.values()]
        utility[arm] = float(stats.hmean(means)) if means else 0.0
        ratios, reference = (
            [rows[which, at].truth_ratio for at in of_part[FORGET]] for which in (arm, NEVER)
        )
        quality[arm] = float(stats.ks_2samp(ratios, reference).pvalue)
        summary.append(
            {
                "documents": arm,
                "n": len(questions),
                "model utility": 100 * utility[arm],
                "forget quality (p)": quality[arm],
            }
        )
    return {
        "n": len(questions),
        "forget_quality": quality,
        "model_utility": utility,
        "tables": {"forget quality and model utility": summary, "by part": table},
    }


def _measured(
    part: str, questions: Sequence[TofuQuestion], rows: Sequence[TofuRow]
) -> dict[str, Values]:
    """Probability, ROUGE-L recall and truth ratio of each question, in [0, 1]."""
    probability = np.exp([row.answer for row in rows])
    if part not in (FORGET, RETAIN):  # short answers, as a choice among all
        probability /= probability + [np.exp(row.wrong).sum() for row in rows]
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    recalls = [
        scorer.score(each.answer, row.text)["rougeL"].recall
        for each, row in zip(questions, rows, strict=True)
    ]
    ratio = np.array([row.truth_ratio for row in rows])
    told = np.minimum(ratio, 1 / ratio) if part == FORGET else np.maximum(0, 1 - 1 / ratio)
    return dict(zip(MEASURES, (probability, np.array(recalls), told), strict=True))
