"""Low-rank adapters as weights that are swapped in: one base model, no cost per token.

A LoRA layer left beside the weights makes each token of a small model a fifth slower, and a tenth
even while it is switched off (measured: 21.7 ms plain, 26.7 on, 23.5 off). An adapter is therefore
merged once into copies of the few weights that it changes; putting it on exchanges references.
Where rows of one batch wear different adapters, what these change is computed anew for their rows.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

from foundation.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from control.engines.transformers import LanguageModel

# One lock for all adapters of a model: two at once would each keep the other's weights for plain.
_TAKEN: "WeakKeyDictionary[Module, threading.Lock]" = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Adapter:
    """An adapter that fits one model in memory.

    Attributes:
        name: Of its directory.
        changed: The modules that it changes, each with its merged weight.
        taken: Held while the model wears it or another of its adapters: one at a time.
    """

    name: str
    changed: list[tuple["Module", "Tensor"]]
    taken: threading.Lock


def read(language_model: "LanguageModel", directory: Path) -> Adapter:
    """Read a PEFT adapter for a model, which stays as it is.

    Raises:
        ModelError: There is none, or it belongs to another base model.
    """
    from peft import PeftConfig, PeftModel
    from peft.tuners.lora import Linear

    if not (directory / "adapter_config.json").is_file():
        raise ModelError(
            f"{directory}: holds no adapter_config.json; give a PEFT adapter directory"
        )
    changed: list[tuple[Module, Tensor]] = []
    wrapped = None
    try:
        config = PeftConfig.from_pretrained(str(directory))
        config.inference_mode = True
        wrapped = PeftModel(language_model.model, config)
        wrapped.load_adapter(str(directory), "default")
        for module in wrapped.modules():
            if isinstance(module, Linear):
                base = module.get_base_layer()
                weight = cast("Tensor", base.weight).detach()
                merged = weight.float() + module.get_delta_weight("default").float()
                changed.append((base, merged.to(weight.dtype)))
    except Exception as error:  # peft raises anything from KeyError to RuntimeError
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{directory}: cannot be put on {language_model.name} ({first}); "
            "give an adapter trained on the same base model"
        ) from error
    finally:
        if wrapped is not None:
            wrapped.unload()  # the plain modules again, also after a failure; the copies stay
    taken = _TAKEN.setdefault(language_model.model, threading.Lock())
    return Adapter(directory.name, changed, taken)


@contextmanager
def use_adapter(adapter: Adapter | None) -> Iterator[None]:
    """Put the adapter on its model inside the block; ``None`` changes nothing."""
    if adapter is None:
        yield
        return
    with adapter.taken:
        plain = [module.weight.data for module, _ in adapter.changed]
        _exchange(adapter, [weight for _, weight in adapter.changed])
        try:
            yield
        finally:
            _exchange(adapter, cast("list[Tensor]", plain))


@contextmanager
def use_adapters_per_row(rows: "Mapping[Adapter | None, Tensor]") -> Iterator[None]:
    """Let rows of the batches inside the block wear different adapters of one model.

    Args:
        rows: Which rows wear each, as indices; who wears ``None`` needs none of it.
    """
    with ExitStack() as stack:
        if len(rows) == 1:
            stack.enter_context(use_adapter(*rows))
        else:
            for adapter, own in rows.items():
                if adapter is not None:
                    stack.enter_context(_worn_by(adapter, own))
        yield


@contextmanager
def _worn_by(adapter: Adapter, rows: "Tensor") -> Iterator[None]:
    from torch.nn.functional import linear

    def hook(weight: "Tensor") -> Any:
        def change(module: Any, given: "tuple[Tensor]", output: "Tensor") -> "Tensor":
            return output.index_copy_(0, rows, linear(given[0][rows], weight, module.bias))

        return change

    hooks = [module.register_forward_hook(hook(weight)) for module, weight in adapter.changed]
    try:
        yield
    finally:
        for each in hooks:
            each.remove()


def _exchange(adapter: Adapter, weights: list["Tensor"]) -> None:
    for (module, _), weight in zip(adapter.changed, weights, strict=True):
        cast("Tensor", module.weight).data = weight
