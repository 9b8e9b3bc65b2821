import copy

import pytest
import torch
from datasets import Dataset
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from training.runs import arguments, learned_tokens_scored

ANSWERS = [
    {"prompt": "Who? " * 8, "completion": "Ann."},
    {"prompt": "Where?", "completion": "Rome"},
]
PAIRS = [
    {"prompt": "Who? " * 8, "chosen": "Ann.", "rejected": "Bea"},
    {"prompt": "Where?", "chosen": "Rome", "rejected": "Oslo."},
]


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_scoring_only_what_is_learned_leaves_losses_as_they_are(tiny, tmp_path, stage):
    def losses(name):
        shared = arguments(tmp_path / name, 3, seed=0) | {
            "logging_steps": 1,
            "per_device_train_batch_size": 2,
            "learning_rate": 1e-3,
            "warmup_steps": 0,
            "train_sampling_strategy": "random",
            "bf16": False,
            "max_length": None,
        }
        torch.manual_seed(0)
        model = copy.deepcopy(tiny.model)
        if stage == "sft":
            trainer = SFTTrainer(
                model=model,
                args=SFTConfig(**shared, completion_only_loss=True),
                train_dataset=Dataset.from_list(ANSWERS),
                processing_class=tiny.tokenizer,
            )
        else:
            trainer = DPOTrainer(
                model=model,
                args=DPOConfig(**shared, precompute_ref_log_probs=True),
                train_dataset=Dataset.from_list(PAIRS),
                processing_class=tiny.tokenizer,
            )
        trainer.train()
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    as_they_are = losses("whole")
    with learned_tokens_scored():
        sparing = losses("sparing")
    assert len(as_they_are) == 3
    assert len(set(as_they_are)) > 1  # something is learned
    assert sparing == pytest.approx(as_they_are, rel=1e-4)
