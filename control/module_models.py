"""The language model behind rewriter and filter: plain continuation and a choice of two labels."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from llama_index.core.base.llms.types import CompletionResponse, CompletionResponseGen, LLMMetadata
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.llms.custom import CustomLLM
from transformers import EosTokenCriteria, MaxLengthCriteria, StoppingCriteriaList

from control.conflict.claims import ends_sentence
from control.decoding.generate import BASE_MODEL_STOPS, stop_ids, stop_strings
from control.decoding.rules import plain
from control.engines import batch
from control.engines.adapters import Adapter, use_adapter
from control.engines.batch import SequenceGroup
from control.engines.transformers import LanguageModel
from control.prompts import is_chat

MOST_NEW_TOKENS = 96  # the longest rewrite that training shows has 49


class ModuleLLM(CustomLLM):
    """Continues a text greedily, for LlamaIndex; with an adapter, or as the model stands.

    With an adapter the text is continued as it is, as adapters are trained here; without one it is
    a user's message in the model's chat template.
    """

    _language_model: LanguageModel = PrivateAttr()
    _adapter: Adapter | None = PrivateAttr()
    _stops: StoppingCriteriaList = PrivateAttr()

    def __init__(
        self, language_model: LanguageModel, adapter: Adapter | None = None, stop: str | None = None
    ) -> None:
        """Join a model and an adapter read for it; ``stop`` ends a continuation early."""
        super().__init__()
        self._language_model, self._adapter = language_model, adapter
        self._stops = StoppingCriteriaList([MaxLengthCriteria(MOST_NEW_TOKENS)])
        if ends := stop_ids(language_model.model):
            self._stops.append(EosTokenCriteria(sorted(ends)))
        if stop:
            self._stops.append(stop_strings(language_model.tokenizer, stop))

    @property
    def metadata(self) -> LLMMetadata:
        """Name, window and output length, for LlamaIndex."""
        return LLMMetadata(
            model_name=self._language_model.name,
            context_window=self._language_model.window,
            num_output=MOST_NEW_TOKENS,
        )

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **_: Any) -> CompletionResponse:
        """Continue a text; one beyond the model's window loses its beginning."""
        [text] = self.complete_batch([prompt])
        return CompletionResponse(text=text)

    def complete_batch(self, prompts: Sequence[str]) -> list[str]:
        """Continue several texts in one batch."""
        tokenizer, model = self._language_model.tokenizer, self._language_model.model
        if self._adapter is None and is_chat(tokenizer):
            prompts = [
                tokenizer.apply_chat_template(
                    [{"role": "user", "content": each}], tokenize=False, add_generation_prompt=True
                )
                for each in prompts
            ]
        room = self._language_model.room(MOST_NEW_TOKENS)
        rows = [row[-room:] for row in tokenizer(list(prompts), add_special_tokens=False).input_ids]
        encoded = tokenizer.pad({"input_ids": rows}, return_tensors="pt").to(model.device)
        with torch.inference_mode():
            state = batch.read(
                model, encoded.input_ids, encoded.attention_mask, adapter=self._adapter
            )
            none_yet = encoded.input_ids[:, :0]
            group = SequenceGroup(
                state,
                none_yet,
                plain,
                branches=1,
                adapter=self._adapter,
                stopping_criteria=self._stops,
            )
            batch.decode(model, group)
        written = group.gathered(cast("int", tokenizer.pad_token_id))
        texts: list[str] = tokenizer.batch_decode(written, skip_special_tokens=True)
        return texts

    @llm_completion_callback()
    def stream_complete(
        self, prompt: str, formatted: bool = False, **settings: Any
    ) -> CompletionResponseGen:
        """The whole continuation at once, since the modules parse nothing earlier."""

        def responses() -> CompletionResponseGen:
            whole = self.complete(prompt, formatted, **settings)
            yield CompletionResponse(text=whole.text, delta=whole.text)

        return responses()


def replies(
    language_model: LanguageModel,
    texts: Sequence[str],
    max_new_tokens: int,
    samples: int = 0,
    temperature: float = 1.0,
    seed: int = 0,
    sentence: bool = False,
) -> list[str]:
    """Continue texts in one batch, without a second branch and without a trace.

    Args:
        language_model: Model and tokenizer.
        texts: Rendered prompts, each within the model's window.
        max_new_tokens: Longest continuation, in tokens.
        samples: Draws for each text; 0 takes the likeliest token at every step.
        temperature: Of the draws.
        seed: Of the draws.
        sentence: End each continuation with its first sentence.

    Returns:
        The continuations: all draws of the first text, then all of the second, and so on.
    """
    tokenizer, model = language_model.tokenizer, language_model.model
    encoded = tokenizer(list(texts), return_tensors="pt", padding=True, add_special_tokens=False)
    drawing = dict[str, Any](do_sample=False, temperature=None, top_p=None, top_k=None)
    if samples:
        drawing = {"do_sample": True, "temperature": temperature, "top_p": 1.0, "top_k": 0}
        drawing["num_return_sequences"] = samples

    def ended(ids: torch.Tensor, _scores: torch.Tensor, **_: Any) -> torch.Tensor:
        # Without the prompt, whose last tokens may end a sentence.
        fresh = [row[max(encoded.input_ids.shape[1], len(row) - 8) :] for row in ids]
        ends = [ends_sentence(tokenizer.decode(row)) for row in fresh]
        return torch.tensor(ends, device=ids.device)

    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(seed)
        written = model.generate(
            **encoded.to(model.device),
            **drawing,
            max_new_tokens=max_new_tokens,
            pad_token_id=tokenizer.pad_token_id,
            stopping_criteria=[ended] if sentence else None,
            stop_strings=None if is_chat(tokenizer) else BASE_MODEL_STOPS,
            tokenizer=None if is_chat(tokenizer) else tokenizer,
        )
    fresh = written[:, encoded.input_ids.shape[1] :]
    return [text.strip() for text in tokenizer.batch_decode(fresh, skip_special_tokens=True)]


def label_probabilities(
    language_model: LanguageModel,
    prompts: Sequence[str],
    labels: tuple[str, str],
    adapter: Adapter | None = None,
) -> list[float]:
    """The probability that each text is continued by the second label rather than the first.

    One forward pass for all texts, of which only the last position is projected to the vocabulary.

    Args:
        language_model: Model and tokenizer.
        prompts: The texts; the tail of those beyond the window.
        labels: Two continuations that differ in their first token.
        adapter: On the model meanwhile.

    Returns:
        For each text the probability of ``labels[1]``, the two summing to 1.
    """
    if not prompts:
        return []
    tokenizer, model = language_model.tokenizer, language_model.model
    first = [tokenizer(label, add_special_tokens=False).input_ids[0] for label in labels]
    encoded = tokenizer(list(prompts), return_tensors="pt", padding=True, add_special_tokens=False)
    ids = encoded.input_ids[:, -language_model.window :].to(model.device)
    mask = encoded.attention_mask[:, -language_model.window :].to(model.device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with use_adapter(adapter), torch.inference_mode():
        logits = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            logits_to_keep=1,
            use_cache=False,
        ).logits[:, -1]
    likely: list[float] = logits[:, first].float().softmax(-1)[:, 1].tolist()
    return likely
