"""Trains the adapters of the retrieval modules: Query Rewriter+ and Knowledge Filter.

Low-rank as in ERM4 (rank 8, alpha 16), on attention's projections only: the merged copies that
`control.engines.adapters` swaps in then stay a tenth of the model.
"""

import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from control.engines.transformers import LanguageModel, preferred_device, preferred_dtype
from control.forgetting import learned_facts
from control.forgetting.learned_facts import LearnedFact
from foundation.text import counted
from retrieval.filter import JUDGEMENT
from training import rewrites, verdicts
from training.rewrites import RewritePair
from training.runs import arguments, keep, last_checkpoint, learned_tokens_scored
from training.verdicts import VerdictExample

if TYPE_CHECKING:
    from retrieval.filter import JudgeCalibration

log = logging.getLogger(__name__)

RANK, ALPHA = 8, 16
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")
LEARNING_RATE = 5e-4  # ERM4 tunes 7B parameters at 1e-4; smaller models bear, and need, more
BATCH = 16
REWRITER_PAIRS, REWRITER_EPOCHS = 6000, 1
FILTER_EXAMPLES, FILTER_EPOCHS = 960, 1
CROSS_ENCODER_EXAMPLES, CROSS_ENCODER_EPOCHS = 8000, 1
CROSS_ENCODER_RANK, CROSS_ENCODER_RATE = 16, 1e-3
CROSS_ENCODER_BATCH = 32
DEVELOPMENT_EXAMPLES = 1200
WHOLE = ("own", "swapped")  # examples with an untouched passage, as retrieval finds them
LEAST_RECALL = 0.98  # a passage wrongly dropped costs an answer, one wrongly kept only time
REWRITER, FILTER = "rewriter", "filter --judge model"  # the commands
SMOKE = 48  # examples of a trial run that shows that everything works


States = Callable[[str], bool]
"""Whether a text states what is not to be learned"""


def rewriter_pairs(
    seed: int = 0, smoke: bool = False, states: States | None = None
) -> list[RewritePair]:
    """What the rewriter learns from; as `train_rewriter`."""
    pairs = rewrites.build_pairs(SMOKE if smoke else REWRITER_PAIRS, seed)
    return [pair for pair in pairs if states is None or not states(pair.text)]


def filter_examples(
    seed: int = 0, smoke: bool = False, states: States | None = None
) -> list[VerdictExample]:
    """What the Knowledge Filter's language model learns from; as `train_filter`."""
    learn, _ = verdicts.build_examples(seed)
    told = (
        each
        for each in learn
        if states is None or not states(f"{each.question}\n{each.title}\n{each.text}")
    )
    return list(islice(told, SMOKE if smoke else FILTER_EXAMPLES))


def train_rewriter(
    lm: LanguageModel,
    target: Path,
    seed: int = 0,
    smoke: bool = False,
    states: States | None = None,
) -> Path:
    """Train Query Rewriter+ on pairs built from the calibration relations.

    Interrupted, the same call goes on from the last checkpoint in ``target``.

    Args:
        lm: The base model.
        target: Directory of the run; the adapter is written to its folder ``adapter``.
        seed: Of data and training.
        smoke: A few steps only.
        states: Examples with such a text are left out.

    Returns:
        The adapter's directory.
    """
    made = rewriter_pairs(seed, smoke, states)
    records = [pair.record() for pair in made]
    epochs = 1 if smoke else REWRITER_EPOCHS
    return _tune(lm, records, rewrites.learned(made), target, REWRITER, epochs, seed)


def train_filter(
    lm: LanguageModel,
    target: Path,
    seed: int = 0,
    smoke: bool = False,
    states: States | None = None,
) -> Path:
    """Train the Knowledge Filter's language-model way; as `train_rewriter`."""
    from retrieval.filter import LABELS, judge_prompt

    made = filter_examples(seed, smoke, states)
    records = [
        {
            "prompt": judge_prompt(example.question, f"{example.title}\n{example.text}"),
            "completion": LABELS[example.answers],
        }
        for example in made
    ]
    epochs = 1 if smoke else FILTER_EPOCHS
    adapter = _tune(lm, records, verdicts.learned(made), target, FILTER, epochs, seed)
    model_judgement(lm, adapter, seed).save(adapter / JUDGEMENT)
    return adapter


def model_judgement(lm: LanguageModel, adapter: Path, seed: int = 0) -> "JudgeCalibration":
    """The threshold of the language model's verdicts; as `judgement`, without a cosine."""
    from control.engines.adapters import read
    from control.module_models import label_probabilities
    from retrieval.filter import LABELS, JudgeCalibration, judge_prompt

    _, develop = verdicts.build_examples(seed)
    prompts = [
        judge_prompt(example.question, f"{example.title}\n{example.text}")
        for example in develop[:DEVELOPMENT_EXAMPLES]
        if example.answers and example.kind in WHOLE
    ]
    use_adapter = read(lm, adapter)
    likely = [
        one
        for start in range(0, len(prompts), BATCH)
        for one in label_probabilities(lm, prompts[start : start + BATCH], LABELS, use_adapter)
    ]
    return JudgeCalibration(1.0, 0.0, 0.0, float(np.quantile(likely, 1 - LEAST_RECALL)))


@learned_tokens_scored()
def _tune(
    lm: LanguageModel,
    records: Sequence[dict[str, str]],
    learned: Sequence[LearnedFact],
    target: Path,
    name: str,
    epochs: int,
    seed: int,
) -> Path:
    """Supervised fine-tuning of a low-rank adapter on prompts and completions."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    started = time.monotonic()
    runs = target / "checkpoints"
    trainer = SFTTrainer(
        model=lm.model,
        processing_class=lm.tokenizer,
        train_dataset=Dataset.from_list(list(records)),
        peft_config=LoraConfig(
            r=RANK, lora_alpha=ALPHA, target_modules=list(TARGETS), task_type="CAUSAL_LM"
        ),
        args=SFTConfig(
            **arguments(runs, epochs, seed),
            per_device_train_batch_size=BATCH,
            learning_rate=LEARNING_RATE,
            bf16=False,  # the base model is loaded in the type that the hardware likes
            completion_only_loss=True,
            max_length=512,
            packing=False,
        ),
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(runs))
    card: dict[str, Any] = {
        "rank": RANK,
        "batch": BATCH,
        "rate": LEARNING_RATE,
        "epochs": epochs,
        "seed": seed,
    }
    card |= {"name": name, "base": lm.name, "count": len(records)}
    keep(trainer.model, target / "adapter", lm.name, _card(started, card))
    learned_facts.write(target / "adapter", name, learned)
    trainer.model.unload()  # the model is as it was
    shutil.rmtree(runs, ignore_errors=True)
    return target / "adapter"


def train_cross_encoder(target: Path, seed: int = 0, smoke: bool = False) -> Path:
    """Train the Knowledge Filter's other way: a cross-encoder of MiniLM size.

    It starts from the packaged embedding model. Only a low-rank adapter and the classifier are
    trained and kept, a few hundred kilobytes; `retrieval.filter` puts them on at loading.

    Args:
        target: Directory of the run; the adapter is written to its folder ``adapter``.
        seed: Of data and training.
        smoke: A few steps only.

    Returns:
        The adapter's directory.
    """
    import torch
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from sentence_transformers.cross_encoder import (
        CrossEncoder,
        CrossEncoderTrainer,
        CrossEncoderTrainingArguments,
    )
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss
    from transformers import set_seed

    from retrieval.embedding import PACKAGED_NAME, packaged_model
    from retrieval.filter import LONGEST_INPUT

    started = time.monotonic()
    set_seed(seed)  # before the classifier is drawn
    learn, _ = verdicts.build_examples(seed)
    learn = learn[: SMOKE if smoke else CROSS_ENCODER_EXAMPLES]
    model = CrossEncoder(str(packaged_model()), num_labels=1, max_length=LONGEST_INPUT)
    model[0].model = get_peft_model(
        model[0].model,
        LoraConfig(
            r=CROSS_ENCODER_RANK,
            lora_alpha=2 * CROSS_ENCODER_RANK,
            target_modules=["query", "key", "value", "dense"],
            modules_to_save=["classifier"],
        ),
    )
    runs = target / "checkpoints"
    epochs = 1 if smoke else CROSS_ENCODER_EPOCHS
    trainer = CrossEncoderTrainer(
        model=model,
        args=CrossEncoderTrainingArguments(
            **arguments(runs, epochs, seed),
            per_device_train_batch_size=CROSS_ENCODER_BATCH,
            learning_rate=CROSS_ENCODER_RATE,
            bf16=preferred_dtype() == torch.bfloat16,
            use_cpu=preferred_device().type == "cpu",  # else bf16 is refused there
        ),
        train_dataset=Dataset.from_dict(
            {
                "question": [example.question for example in learn],
                "passage": [f"{example.title}\n{example.text}" for example in learn],
                "label": [float(example.answers) for example in learn],
            }
        ),
        loss=BinaryCrossEntropyLoss(model),
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(runs))
    adapter = target / "adapter"
    card: dict[str, Any] = {
        "rank": CROSS_ENCODER_RANK,
        "batch": CROSS_ENCODER_BATCH,
        "rate": CROSS_ENCODER_RATE,
    }
    card |= {"epochs": epochs, "seed": seed}
    card |= {"name": "filter", "base": PACKAGED_NAME, "count": len(learn)}
    keep(model[0].model, adapter, PACKAGED_NAME, _card(started, card))
    judgement(adapter, seed).save(adapter / JUDGEMENT)
    shutil.rmtree(runs, ignore_errors=True)
    return adapter


def judgement(adapter: Path, seed: int = 0) -> "JudgeCalibration":
    """Fit what the cross-encoder's logit and the cosine say together, and the threshold.

    On relations that the cross-encoder was not trained on.
    """
    from sklearn.linear_model import LogisticRegression

    from retrieval.embedding import open_embedding
    from retrieval.filter import CrossEncoderLogits, JudgeCalibration, cosines

    _, develop = verdicts.build_examples(seed)
    develop = develop[:DEVELOPMENT_EXAMPLES]
    pairs = [(example.question, f"{example.title}\n{example.text}") for example in develop]
    read = CrossEncoderLogits(adapter)
    logits = np.array([read(question, [passage])[0] for question, passage in pairs])
    features = np.column_stack([logits, cosines(open_embedding(), pairs)])
    answers = np.array([example.answers for example in develop])
    fitted = LogisticRegression().fit(features, answers)
    whole = np.array([example.kind in WHOLE for example in develop])
    likely = fitted.predict_proba(features[whole & answers])[:, 1]
    [logit, cosine], [bias] = fitted.coef_[0], fitted.intercept_
    threshold = float(np.quantile(likely, 1 - LEAST_RECALL))
    return JudgeCalibration(float(logit), float(cosine), float(bias), threshold)


class FoundPassages(NamedTuple):
    """Passages that searches found, of all questions one after the other.

    Attributes:
        cosines: Of question and passage.
        ranks: In the search, from 1.
        answers: Whether the passage answers its question.
        logits: Of the reader; ``None`` where the judge is to do without.
    """

    cosines: NDArray[np.float64]
    ranks: NDArray[np.int64]
    answers: NDArray[np.bool_]
    logits: NDArray[np.float64] | None = None

    @property
    def features(self) -> NDArray[np.float64]:
        """Logit, if known, cosine and negative logarithm of the rank, shape (passages, 2 or 3)."""
        read = [] if self.logits is None else [self.logits]
        return np.column_stack([*read, self.cosines, -np.log(self.ranks)])


def fit_judge(sources: Mapping[str, FoundPassages]) -> "JudgeCalibration":
    """Fit the judge by cosine, or by the reader, on passages found for questions of some sources.

    Each source has the same weight. The threshold is reached by 98 % of the passages that answer,
    in each source.
    """
    from retrieval.filter import JudgeCalibration

    fitted = _fit_found(list(sources.values()))
    *read, cosine, rank = map(float, fitted.coef_[0])
    thresholds = [
        np.quantile(fitted.predict_proba(found.features[found.answers])[:, 1], 1 - LEAST_RECALL)
        for found in sources.values()
    ]
    [bias] = map(float, fitted.intercept_)
    return JudgeCalibration(read[0] if read else 0.0, cosine, bias, float(min(thresholds)), rank)


def transfer(sources: Mapping[str, FoundPassages]) -> list[dict[str, Any]]:
    """AUROC on each source when it is left out of the fit, and by each feature alone."""
    from sklearn.metrics import roc_auc_score

    rows = []
    for name, found in sources.items():
        others = [each for other, each in sources.items() if other != name]
        left_out = _fit_found(others).predict_proba(found.features)[:, 1] if others else None
        scores = {"left out": left_out, "cosine": found.cosines, "rank": -found.ranks}
        scores["reader"] = found.logits
        rows.append(
            {"source": name, "n": len(found.answers)}
            | {
                way: float(roc_auc_score(found.answers, score))
                for way, score in scores.items()
                if score is not None
            }
        )
    return rows


def _fit_found(sources: Sequence[FoundPassages]) -> Any:  # scikit-learn has no types
    from sklearn.linear_model import LogisticRegression

    features = np.vstack([found.features for found in sources])
    answers = np.concatenate([found.answers for found in sources])
    sizes = [len(found.answers) for found in sources]
    weights = np.concatenate([np.full(size, sum(sizes) / len(sizes) / size) for size in sizes])
    return LogisticRegression().fit(features, answers, sample_weight=weights)


def _card(started: float, settings: dict[str, Any]) -> str:
    minutes = (time.monotonic() - started) / 60
    return CARD.format(minutes=minutes, passes=counted(settings["epochs"], "epoch"), **settings)


CARD = """\
# Adapter of {base}

Written by `fulcrum train {name} --out DIR --seed {seed}` in {minutes:.0f} minutes: LoRA of rank
{rank}, {passes} over {count:,} examples, batch {batch}, learning rate {rate:g} (cosine).
`training/` builds the examples from the calibration relations of the built-in corpus; no relation
and no wording of the test split takes part. What it is worth: `fulcrum eval retrieval`.
"""
