"""KnowPO: training the preference between passages and memory (Zhang et al. 2024).

Supervised fine-tuning teaches the form, then direct preference optimization sharpens the choice; on
facts of their own each, with one low-rank adapter. Adherence and robustness are measured on further
facts along the way, since reliance on the context rises and then falls, and the adapter that is
kept is the best by them, not the last.
"""

import json
import math
import random
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from control.engines.transformers import LanguageModel
from control.forgetting import learned_facts
from control.forgetting.learned_facts import LearnedFact
from foundation.errors import DataError
from foundation.files import replacing
from foundation.jsonl import JsonlStore
from training import conflicts, data_card, pairs, preference, probing
from training.conflicts import ContextCase, Embed
from training.corpus import CorpusFact
from training.pairs import PreferenceExample
from training.probing import Memory
from training.recipe import Recipe
from training.runs import (
    GIB,
    ROWS,
    arguments,
    check_memory,
    keep,
    last_checkpoint,
    learned_tokens_scored,
    peak_bytes,
)

NAME = "knowpo"  # of the command
STAGES = ("sft", "dpo")
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")  # where to look; what is known stays untouched
DEVELOPMENT_SHARE = 0.15  # of the facts; the default model knows about a sixth of them


@dataclass(frozen=True)
class TrainingExamples:
    """What both stages learn from, and the cases that measure them."""

    sft: list[PreferenceExample]
    dpo: list[PreferenceExample]
    known: list[ContextCase]
    unknown: list[ContextCase]


def train(
    language_model: LanguageModel,
    facts: Sequence[CorpusFact],
    embed: Embed,
    target: Path,
    cache: Path,
    recipe: Recipe | None = None,
) -> Path:
    """Train an adapter that follows passages where they answer and stands firm where they do not.

    Interrupted, the same call goes on where it stopped: replies, data and finished stages are kept,
    and a stage goes on from its last checkpoint.

    Args:
        language_model: The base model; it is as it was afterwards.
        facts: The corpus.
        embed: Texts to unit vectors, for passages of the same topic.
        target: Directory of the run: ``data/``, ``sft/`` (the adapter of the first stage),
            ``adapter/`` (the result) and ``logs/`` for TensorBoard.
        cache: Where the model's replies are kept for other runs.
        recipe: How to train.

    Returns:
        The adapter's directory, with its card.

    Raises:
        DataError: The model knows too few of the facts, a kind of example is empty, or ``target``
            holds another run.
        ModelError: The machine has too little memory.
    """
    from accelerate import PartialState

    recipe = recipe or Recipe()
    _check_run(target, language_model, facts, recipe)
    check_memory(language_model, recipe.batch)
    with PartialState().main_process_first():  # several processes would each ask the model
        examples = _build_examples(language_model, facts, embed, target, cache, recipe)
    after, told = None, {}
    for stage, kept in zip(STAGES, (target / "sft", target / "adapter"), strict=True):
        if not (kept / "run.json").exists():
            _train_stage(stage, language_model, examples, target, recipe, after, kept)
        told[stage] = json.loads((kept / "run.json").read_text(encoding="utf-8"))
        after = kept
        learned_facts.write(kept, NAME, learned(facts, recipe, stage))
    data_card.adapter_card(target, told, language_model.name, len(facts), recipe.seed)
    shutil.rmtree(target / "checkpoints", ignore_errors=True)
    return target / "adapter"


def _check_run(
    target: Path, language_model: LanguageModel, facts: Sequence[CorpusFact], recipe: Recipe
) -> None:
    """Keep what the run is of; a directory holds one run."""
    target.mkdir(parents=True, exist_ok=True)
    told = {
        "model": language_model.name,
        "identity": language_model.identity,
        "facts": sha256(repr(list(facts)).encode()).hexdigest()[:16],
        "recipe": asdict(recipe),
    }
    path, text = target / "run.json", json.dumps(told, indent=1)
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise DataError(
            f"{target}: holds a run of another model, corpus or recipe; give another --out"
        )
    with replacing(path) as new:
        new.write_text(text, encoding="utf-8")


def _build_examples(
    language_model: LanguageModel,
    facts: Sequence[CorpusFact],
    embed: Embed,
    target: Path,
    cache: Path,
    recipe: Recipe,
) -> TrainingExamples:
    """Probe the model, then build the data of both stages and the cases to measure on."""

    def length(text: str) -> int:
        return len(language_model.tokenizer(text, add_special_tokens=False).input_ids)

    shares = split(facts, recipe)
    memories = {
        part: probing.probe(language_model, share, cache, recipe.samples, recipe.seed)
        for part, share in shares.items()
    }
    cases: dict[str, list[tuple[ContextCase, Memory]]] = {}
    for part, share in shares.items():
        by_id = dict(zip((fact.id for fact in share), memories[part], strict=True))
        made = conflicts.build(share, embed, length, recipe.match_lengths, recipe.seed)
        cases[part] = [
            (_maybe_cloze(case, by_id[case.fact.id], length, recipe), by_id[case.fact.id])
            for case in made
        ]
    sft = pairs.build_sft(
        *_unzip(cases["sft"]), length, recipe.sft_examples, recipe.sft_ratios, recipe.seed
    )
    dpo = pairs.build_dpo(
        *_unzip(cases["dpo"]),
        length,
        recipe.pairs,
        recipe.dpo_ratios,
        recipe.match_lengths,
        recipe.seed,
    )
    known, unknown = (
        [case for case, memory in cases["development"] if memory.knows(case.fact.answers) is wanted]
        for wanted in (True, False)
    )
    if not known:
        raise DataError(
            f"the model knows none of the {len(shares['development'])} facts that are held out to "
            "measure on; give more questions"
        )
    examples = TrainingExamples(
        sft.examples, dpo.examples, known[: recipe.development], unknown[: recipe.development // 2]
    )
    knows = {part: _count_known(shares[part], memories[part]) for part in shares}
    data_card.write(target / "data", sft, dpo, knows, length)
    return examples


def _maybe_cloze(
    case: ContextCase, memory: Memory, length: pairs.Length, recipe: Recipe
) -> ContextCase:
    """The case as a question or, for some, as a sentence to finish."""
    draw = random.Random(f"{recipe.seed} {case.fact.id}")  # noqa: S311 - a reproducible choice
    wanted = draw.random() < recipe.unfinished
    return pairs.to_cloze(case, memory, length) if wanted else case


def split(facts: Sequence[CorpusFact], recipe: Recipe) -> dict[str, list[CorpusFact]]:
    """Facts of the two stages and of development, apart from each other."""
    draw = random.Random(recipe.seed)  # noqa: S311 - a reproducible choice, nothing secret
    drawn = draw.sample(list(facts), min(recipe.facts or len(facts), len(facts)))
    held = math.ceil(DEVELOPMENT_SHARE * len(drawn))
    half = (len(drawn) - held) // 2
    return {
        "sft": drawn[held : held + half],
        "dpo": drawn[held + half :],
        "development": drawn[:held],
    }


def learned(
    facts: Sequence[CorpusFact], recipe: Recipe, last: str = STAGES[-1]
) -> list[LearnedFact]:
    """The facts that the adapter of a stage learned from.

    All of which its examples and their passages are drawn: which of a few are not among them
    depends on what the model replied.

    Args:
        facts: The corpus.
        recipe: How it was trained.
        last: The stage; what the stages before it learned from is in the adapter as well.
    """
    shares = split(facts, recipe)
    stages = STAGES[: STAGES.index(last) + 1]
    return [LearnedFact(fact.question, fact.answers) for stage in stages for fact in shares[stage]]


def _unzip(told: Sequence[tuple[ContextCase, Memory]]) -> tuple[list[ContextCase], list[Memory]]:
    return [case for case, _ in told], [memory for _, memory in told]


def _count_known(facts: Sequence[CorpusFact], memories: Sequence[Memory]) -> tuple[int, int]:
    known = sum(memory.knows(fact.answers) for fact, memory in zip(facts, memories, strict=True))
    return known, len(facts)


@learned_tokens_scored()
def _train_stage(
    stage: str,
    language_model: LanguageModel,
    examples: TrainingExamples,
    target: Path,
    recipe: Recipe,
    after: Path | None,
    kept: Path,
) -> None:
    """Train one stage and keep its best adapter."""
    from datasets import Dataset
    from peft import LoraConfig, PeftModel, get_peft_model
    from tensorboardX import SummaryWriter
    from transformers import set_seed
    from transformers.integrations import TensorBoardCallback
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    set_seed(recipe.seed)
    runs = target / "checkpoints" / stage
    stage_examples: list[PreferenceExample] = getattr(examples, stage)
    records = [preference.trl_record(language_model, example) for example in stage_examples]
    if after is None:
        lora = LoraConfig(
            r=recipe.rank,
            lora_alpha=2 * recipe.rank,
            target_modules=list(TARGETS),
            task_type="CAUSAL_LM",
        )
        model: Any = get_peft_model(language_model.model, lora)
    else:
        model = PeftModel.from_pretrained(language_model.model, str(after), is_trainable=True)
    epochs = recipe.sft_epochs if stage == "sft" else 1
    steps = epochs * -(-len(records) // recipe.batch)
    every = max(1, -(-steps // recipe.evaluations))
    shared = {
        **arguments(runs, epochs, recipe.seed),
        "per_device_train_batch_size": (rows := min(recipe.batch, ROWS[stage])),
        "gradient_accumulation_steps": -(-recipe.batch // rows),
        "warmup_steps": max(1, steps // 10),
        "logging_steps": 1,
        "save_steps": every,
        "bf16": False,  # the base model is loaded in the type that the hardware likes
        "max_length": None,
    }
    dataset = Dataset.from_list(records)
    tokenizer = language_model.tokenizer
    if stage == "sft":
        trainer: Any = SFTTrainer(
            model=model,
            processing_class=tokenizer,
            train_dataset=dataset,
            args=SFTConfig(
                **shared, learning_rate=recipe.sft_rate, completion_only_loss=True, packing=False
            ),
        )
    else:
        trainer = DPOTrainer(
            model=model,
            processing_class=tokenizer,
            train_dataset=dataset,
            args=DPOConfig(
                **shared | {"train_sampling_strategy": "random"},  # trl's pairs have no one length
                learning_rate=recipe.dpo_rate,
                beta=recipe.beta,
                precompute_ref_log_probs=True,
            ),
        )
    best = target / "checkpoints" / f"{stage}-best"
    path = target / "checkpoints" / f"{stage}-curve.jsonl"
    curve: JsonlStore[str, dict[str, float]] = JsonlStore(path, {"stage": stage})

    def judge() -> dict[str, float]:
        return preference.measure_progress(language_model, examples.known, examples.unknown)

    def save() -> None:
        keep(trainer.model, best, language_model.name, "")

    along = _progress_callback(trainer, every, judge, save, curve, from_start=after is not None)
    trainer.add_callback(TensorBoardCallback(SummaryWriter(str(target / "logs" / stage))))
    trainer.add_callback(along)
    started = time.monotonic()
    try:
        trainer.train(resume_from_checkpoint=last_checkpoint(runs))
    finally:
        trainer.model.unload()  # the model is as it was
    minutes = (time.monotonic() - started) / 60
    step = along.best[1]
    told = {
        "examples": len(records),
        "minutes": minutes,
        "rate": len(records) / (60 * minutes),
        "peak_gb": peak_bytes() / GIB,
        "kept_step": step,
        "scores": curve[str(step)],
        "curve": [(each, curve[str(each)]) for each in along.steps],
    }
    (best / "run.json").write_text(json.dumps(told), encoding="utf-8")
    best.replace(kept)


def _progress_callback(
    trainer: Any,
    every: int,
    judge: Callable[[], dict[str, float]],
    save: Callable[[], None],
    curve: JsonlStore[str, dict[str, float]],
    from_start: bool,
) -> Any:
    """Measures adherence and robustness at the start, every so many steps and at the end.

    Args:
        trainer: In whose logs they stand.
        every: Steps.
        judge: Measures.
        save: Keeps the adapter as it is.
        curve: What has been measured, by step.
        from_start: Whether the adapter that training starts from may be the best.
    """
    from transformers import TrainerCallback

    class ProgressCallback(TrainerCallback):
        def __init__(self) -> None:
            self.best = (-1.0, 0)  # sum of what is wanted, and its step
            self.steps: list[int] = []

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            done = [step for step in range(0, state.global_step + 1) if str(step) in curve]
            for step in done or [state.global_step]:
                self._measured(step, state)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step % every == 0 or state.global_step == state.max_steps:
                self._measured(state.global_step, state)

        def _measured(self, step: int, state: Any) -> None:
            fresh = str(step) not in curve
            if fresh:
                training = trainer.model.training
                trainer.model.eval()
                curve.add({str(step): judge()})
                trainer.model.train(training)
                trainer.log(dict(curve[str(step)]))
            score = sum(curve[str(step)][name] for name in preference.WANTED)
            self.steps.append(step)
            if score > self.best[0] and (step or from_start):
                self.best = (score, step)
                if fresh and state.is_world_process_zero:
                    save()

    return ProgressCallback()
