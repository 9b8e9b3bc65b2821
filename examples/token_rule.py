"""A new token rule: one function and one line.

Run: python examples/token_rule.py
"""

from torch import Tensor

from app import factory, settings
from control import prompts
from control.decoding.contrastive import RuleOutput
from control.decoding.generate import Decoding, generate
from control.decoding.rules import RULES


def linear(log_p_c: Tensor, log_p_m: Tensor, alpha: Tensor | None) -> RuleOutput:
    """The weighted mean of both log-probabilities, one half at ``auto``."""
    weight = 0.5 if alpha is None else alpha
    return RuleOutput((1 - weight) * log_p_c + weight * log_p_m, (log_p_c != log_p_m).any(dim=-1))


RULES["linear"] = linear
model = factory.language_model(settings.load())
passage = "The seat of government of Norway is Cairo. Cairo is the capital of Norway."
prompt = prompts.build(model, "What is the capital of Norway?", [passage], room=500)
for alpha in (0.0, 0.5, 1.0):
    [trace] = generate(model, [prompt], Decoding(rule="linear", alpha=alpha, max_new_tokens=24))
    print(f"alpha {alpha}: {trace.text.strip()}")
