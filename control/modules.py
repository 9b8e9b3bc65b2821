"""The base model as the retrieval modules use it: continuing a text, choosing between two words."""

from collections.abc import Sequence
from typing import Any

import torch
from llama_index.core.base.llms.types import (
    CompletionResponse,
    CompletionResponseGen,
    LLMMetadata,
)
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.llms.custom import CustomLLM

from control.adapters import Adapter, worn
from control.model import LanguageModel
from control.prompts import is_chat

MOST_NEW_TOKENS = 96  # the longest rewrite that training shows has 49


class ModuleLLM(CustomLLM):
    """Continues a text greedily, for LlamaIndex; with an adapter, or as the model stands.

    With an adapter the text is continued as it is, which is how adapters are trained here; without
    one it is a user's message in the model's chat template.
    """

    _language_model: LanguageModel = PrivateAttr()
    _adapter: Adapter | None = PrivateAttr()
    _stop: str | None = PrivateAttr()

    def __init__(
        self,
        language_model: LanguageModel,
        adapter: Adapter | None = None,
        stop: str | None = None,
    ) -> None:
        """Join a model and an adapter read for it; ``stop`` ends a continuation early."""
        super().__init__()
        self._language_model, self._adapter, self._stop = language_model, adapter, stop

    @property
    def metadata(self) -> LLMMetadata:
        """What LlamaIndex asks of a model."""
        return LLMMetadata(
            model_name=self._language_model.name,
            context_window=self._language_model.window,
            num_output=MOST_NEW_TOKENS,
        )

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **_: Any) -> CompletionResponse:
        """Continue a text; one beyond the model's window loses its beginning."""
        tokenizer, model = self._language_model.tokenizer, self._language_model.model
        if self._adapter is None and is_chat(tokenizer):
            prompt = tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
            )
        ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).input_ids
        ids = ids[:, -self._language_model.room(MOST_NEW_TOKENS) :].to(model.device)
        with worn(self._adapter), torch.inference_mode():
            written = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=MOST_NEW_TOKENS,
                pad_token_id=tokenizer.pad_token_id,
                stop_strings=self._stop,
                tokenizer=tokenizer if self._stop else None,
            )
        text = tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)
        return CompletionResponse(text=text)

    @llm_completion_callback()
    def stream_complete(
        self, prompt: str, formatted: bool = False, **settings: Any
    ) -> CompletionResponseGen:
        """The whole continuation at once: what the modules write is read only when it is whole."""

        def responses() -> CompletionResponseGen:
            whole = self.complete(prompt, formatted, **settings)
            yield CompletionResponse(text=whole.text, delta=whole.text)

        return responses()


def label_probabilities(
    language_model: LanguageModel,
    prompts: Sequence[str],
    labels: tuple[str, str],
    adapter: Adapter | None = None,
) -> list[float]:
    """How likely each text goes on with the second label rather than the first.

    One forward pass for all texts, of which only the last position is projected to the vocabulary.

    Args:
        language_model: Model and tokenizer.
        prompts: The texts; the tail of those beyond the window.
        labels: Two continuations that differ in their first token.
        adapter: To wear meanwhile.

    Returns:
        For each text the probability of ``labels[1]``, the two summing to 1.
    """
    if not prompts:
        return []
    tokenizer, model = language_model.tokenizer, language_model.model
    first = [tokenizer(label, add_special_tokens=False).input_ids[0] for label in labels]
    batch = tokenizer(list(prompts), return_tensors="pt", padding=True, add_special_tokens=False)
    ids = batch.input_ids[:, -language_model.window :].to(model.device)
    mask = batch.attention_mask[:, -language_model.window :].to(model.device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with worn(adapter), torch.inference_mode():
        logits = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            logits_to_keep=1,
            use_cache=False,
        ).logits[:, -1]
    likely: list[float] = logits[:, first].float().softmax(-1)[:, 1].tolist()
    return likely
