"""Trains the adapters of the retrieval modules: Query Rewriter+ and Knowledge Filter.

Low-rank as in ERM4 (rank 8, alpha 16), on attention's projections only: the merged copies that
`control.engines.adapters` swaps in then stay a tenth of the model.
"""

import logging
import random
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from control.engines.transformers import LanguageModel, preferred_device, preferred_dtype
from training import rewrites, verdicts
from training.runs import arguments, keep, last_checkpoint, learned_tokens_scored

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
BUILT_IN_EXAMPLES = 3000  # with other text: templates teach little after the first thousands
DEVELOPMENT_EXAMPLES = 1200
WHOLE = ("own", "swapped")  # examples with an untouched passage, as retrieval finds them
LEAST_RECALL = 0.98  # a passage wrongly dropped costs an answer, one wrongly kept only time
SMOKE = 48  # examples of a trial run that shows that everything works


def train_rewriter(lm: LanguageModel, target: Path, seed: int = 0, smoke: bool = False) -> Path:
    """Train Query Rewriter+ on pairs built from the calibration relations.

    Interrupted, the same call goes on from the last checkpoint in ``target``.

    Args:
        lm: The base model.
        target: Directory of the run; the adapter is written to its folder ``adapter``.
        seed: Of data and training.
        smoke: A few steps only.

    Returns:
        The adapter's directory.
    """
    made = rewrites.build_pairs(SMOKE if smoke else REWRITER_PAIRS, seed)
    records = [pair.record() for pair in made]
    epochs = 1 if smoke else REWRITER_EPOCHS
    return _tune(lm, records, target, "rewriter", epochs, seed)


def train_filter(lm: LanguageModel, target: Path, seed: int = 0, smoke: bool = False) -> Path:
    """Train the Knowledge Filter's language-model way; as `train_rewriter`."""
    from retrieval.filter import LABELS, judge_prompt

    learn, _ = verdicts.build_examples(seed)
    records = [
        {
            "prompt": judge_prompt(example.question, f"{example.title}\n{example.text}"),
            "completion": LABELS[example.answers],
        }
        for example in learn[: SMOKE if smoke else FILTER_EXAMPLES]
    ]
    epochs = 1 if smoke else FILTER_EPOCHS
    adapter = _tune(lm, records, target, "filter --judge model", epochs, seed)
    model_judgement(lm, adapter, seed).save(adapter)
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
    trainer.model.unload()  # the model is as it was
    shutil.rmtree(runs, ignore_errors=True)
    return target / "adapter"


def train_cross_encoder(
    target: Path,
    seed: int = 0,
    smoke: bool = False,
    more: Sequence[verdicts.VerdictExample] = (),
    found: Sequence[verdicts.VerdictExample] = (),
) -> Path:
    """Train the Knowledge Filter's other way: a cross-encoder of MiniLM size.

    It starts from the packaged embedding model. Only a low-rank adapter and the classifier are
    trained and kept, a few hundred kilobytes; `retrieval.filter` puts them on at loading.

    Args:
        target: Directory of the run; the adapter is written to its folder ``adapter``.
        seed: Of data and training.
        smoke: A few steps only.
        more: Examples of other text than the built-in corpus; fewer of the built-in ones are
            learned with them.
        found: Passages found for other questions, to fit `judgement` on.

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
    if more:
        learn = [*learn[:BUILT_IN_EXAMPLES], *more]
        random.Random(seed).shuffle(learn)  # noqa: S311 - a reproducible order, nothing secret
    learn = learn[: SMOKE if smoke else len(more) + CROSS_ENCODER_EXAMPLES]
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
                "passage": [example.passage for example in learn],
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
    judgement(adapter, found, seed).save(adapter)
    shutil.rmtree(runs, ignore_errors=True)
    return adapter


def judgement(
    adapter: Path, found: Sequence[verdicts.VerdictExample] = (), seed: int = 0
) -> "JudgeCalibration":
    """Fit what the cross-encoder's logit, the cosine and the rank say together, and the threshold.

    On passages found for questions that the cross-encoder was not trained on; without such, on
    built-in relations that it was not trained on, whose passages have no rank. The threshold is
    reached by 98 % of the passages that answer, of either kind.

    Args:
        adapter: Of the cross-encoder.
        found: Passages found for questions, with their ranks.
        seed: Of the built-in examples.
    """
    from sklearn.linear_model import LogisticRegression

    from retrieval.embedding import open_embedding
    from retrieval.filter import JudgeCalibration, judge_features, load_cross_encoder

    model, embed_model = load_cross_encoder(adapter), open_embedding()

    def measured(examples: Sequence[verdicts.VerdictExample]) -> NDArray[np.float64]:
        pairs = [(example.question, example.passage) for example in examples]
        ranks = [-np.log(example.rank) for example in examples]
        return np.column_stack([judge_features(model, embed_model, pairs), ranks])

    _, develop = verdicts.build_examples(seed)
    develop = develop[:DEVELOPMENT_EXAMPLES]
    built_in, learned = measured(develop), found or develop
    fitted = LogisticRegression().fit(
        measured(found) if found else built_in, [example.answers for example in learned]
    )
    whole = [example.answers and example.kind in WHOLE for example in develop]
    answering = [built_in[np.array(whole)]]
    if found:
        answering.append(measured([example for example in found if example.answers]))
    thresholds = [
        float(np.quantile(fitted.predict_proba(features)[:, 1], 1 - LEAST_RECALL))
        for features in answering
    ]
    [logit, cosine, rank], [bias] = fitted.coef_[0], fitted.intercept_
    return JudgeCalibration(float(logit), float(cosine), float(bias), min(thresholds), float(rank))


def _card(started: float, settings: dict[str, Any]) -> str:
    return CARD.format(minutes=(time.monotonic() - started) / 60, **settings)


CARD = """\
# Adapter of {base}

Written by `fulcrum train {name} --out DIR --seed {seed}` in {minutes:.0f} minutes: LoRA of rank
{rank}, {epochs} epoch(s) over {count:,} examples, batch {batch}, learning rate {rate:g} (cosine).
`training/` builds the examples from the calibration relations of the built-in corpus; no relation
and no wording of the test split takes part. What it is worth: `fulcrum eval retrieval`.
"""
