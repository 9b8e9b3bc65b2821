"""The Knowledge Filter of ERM4: only passages that hold a clear answer to the question are read.

Premise: one passage; hypothesis: it holds a clear answer. ERM4 has a language model say so in a
word; here a judge gives the probability, so that the threshold can be chosen on data.
"""

import json
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
from numpy.typing import NDArray

from foundation import trace
from foundation.cache import BatchCache
from foundation.errors import InputError, ModelError
from foundation.files import replacing
from retrieval.embedding import (
    cast_once,
    embed_queries,
    embed_texts,
    fast_arithmetic,
    packaged_model,
)

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

LABELS = (" no", " yes")
JUDGEMENT = "judgement.json"
SURE = 0.75  # reached for 94 % of plain questions, and for 9 % of those that need two passages
# What is much less clear than the best passage distracts more than it helps: on 200 calibration
# questions 76 % of answers were right with this bar, 71 % with the threshold alone.
NEAR_BEST = 0.7
REMEMBERED = 512  # verdicts; the trigger asks about passages that are judged again afterwards
LONGEST_INPUT = 256  # word pieces of question and passage that the cross-encoder reads

Judge = Callable[[str, Sequence[str]], list[float]]
"""(question, passages) to the probability that each passage holds a clear answer, in [0, 1]."""


def premise(question: str, passage: str) -> str:
    """The text whose next word, " yes" or " no", says whether ``passage`` answers ``question``."""
    return f"Passage: {passage}\nQuestion: {question}\nDoes the passage answer the question?"


class KnowledgeFilter(BaseNodePostprocessor):
    """Drops passages without a clear answer to the question; those that stay keep their order.

    A passage stays if it reaches the threshold and comes near to the clearest one.

    A question may have been taken apart into searches (``custom_embedding_strs``), none of whose
    passages answers all of it. So the passage that answers a search best stays, too.
    """

    threshold: float = Field(0.5, description="least probability of a passage that stays")
    near_best: float = Field(NEAR_BEST, description="the same as a share of the highest one")
    _judge: Judge = PrivateAttr()
    _recent: BatchCache[tuple[str, str], float] = PrivateAttr(
        default_factory=lambda: BatchCache(REMEMBERED)
    )
    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)

    def __init__(self, judge: Judge, threshold: float) -> None:
        """Filter by a judge.

        Raises:
            InputError: The threshold is no probability.
        """
        if not 0 <= threshold <= 1:
            raise InputError(f"the filter's threshold is {threshold}; give a number from 0 to 1")
        super().__init__()
        self.threshold = threshold
        self._judge = judge

    @property
    def judge(self) -> Judge:
        """What it judges by."""
        return self._judge

    def stricter(self, threshold: float = SURE) -> "KnowledgeFilter":
        """One that judges alike, from the same memory, but keeps only what is surer."""
        stricter = KnowledgeFilter(self._judge, threshold)
        stricter._recent, stricter._lock = self._recent, self._lock
        return stricter

    def verdicts(self, question: str, passages: Sequence[str]) -> list[float]:
        """How likely each passage holds a clear answer; 0 where the judge fails to say."""

        def judged(new: list[tuple[str, str]]) -> list[float]:
            found = self._judge(question, [passage for _, passage in new])
            return [likely if math.isfinite(likely) else 0.0 for likely in found]

        with self._lock:  # a judge's tokenizer serves one at a time
            return self._recent.of([(question, passage) for passage in passages], judged)

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise InputError("the filter was asked without a question; give query_str")
        texts = [found.node.get_content(MetadataMode.EMBED) for found in nodes]
        searches = [text for text in query_bundle.embedding_strs if text != query_bundle.query_str]
        whole = self.verdicts(query_bundle.query_str, texts)
        parts = [self.verdicts(search, texts) for search in searches]
        for part in parts if nodes else ():
            best = part.index(max(part))
            whole[best] = max(whole[best], part[best])
        bar = max(self.threshold, self.near_best * max(whole, default=0.0))
        kept = []
        for found, verdict in zip(nodes, whole, strict=True):
            stays = verdict >= bar
            trace.verdict(found.node_id, verdict, stays)
            if stays:
                kept.append(found)
        return kept


@dataclass(frozen=True)
class Judgement:
    """How a cross-encoder's logit and the cosine of question and passage make one probability.

    The cross-encoder has seen few kinds of questions and knows them well; the embedding model has
    seen a billion pairs. Fitted, like the threshold, on relations that the encoder was not trained
    on. Kept beside the adapter.

    Attributes:
        logit: Weight of the cross-encoder's logit.
        cosine: Weight of the cosine.
        bias: Added to both.
        threshold: Probability that 98 % of answering passages reach.
    """

    logit: float
    cosine: float
    bias: float
    threshold: float

    @classmethod
    def load(cls, adapter: Path) -> "Judgement":
        """Read it from the adapter's directory.

        Raises:
            ModelError: It is missing or damaged.
        """
        try:
            return cls(**json.loads((adapter / JUDGEMENT).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ModelError(
                f"{adapter}: the filter's {JUDGEMENT} cannot be read ({error}); "
                "train it again by: fulcrum train filter --out DIR"
            ) from error

    def save(self, adapter: Path) -> None:
        """Write it into the adapter's directory."""
        with replacing(adapter / JUDGEMENT) as new:
            new.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


class CrossEncoderJudge:
    """A cross-encoder of MiniLM size that reads question and passage together.

    It is the packaged embedding model with an adapter and a classifier on top, loaded at its first
    question; the adapter is merged into the weights.
    """

    def __init__(self, adapter: Path, embed_model: BaseEmbedding) -> None:
        """Name the adapter's directory, written by ``retrieval_modules.train_cross_encoder``.

        Args:
            adapter: The directory.
            embed_model: The packaged embedding model, for the cosines.

        Raises:
            ModelError: The directory holds no judgement.
        """
        self.judgement = Judgement.load(adapter)
        self._adapter = adapter
        self._embed_model = embed_model
        self._loading = threading.Lock()
        self._model: CrossEncoder | None = None

    def __call__(self, question: str, passages: Sequence[str]) -> list[float]:
        """Judge passages in one batch."""
        if not passages:
            return []
        with self._loading:
            if self._model is None:
                self._model = load_cross_encoder(self._adapter)
        features = evidence(self._model, self._embed_model, [(question, p) for p in passages])
        weighed = features @ np.array([self.judgement.logit, self.judgement.cosine])
        likely: list[float] = (1 / (1 + np.exp(-(weighed + self.judgement.bias)))).tolist()
        return likely


def evidence(
    model: "CrossEncoder", embed_model: BaseEmbedding, pairs: Sequence[tuple[str, str]]
) -> NDArray[np.float64]:
    """What `Judgement` weighs, for pairs of question and passage.

    Returns:
        Shape (pairs, 2): the cross-encoder's logit, and the cosine.
    """
    from torch.nn import Identity

    with fast_arithmetic(model):
        logits = model.predict(list(pairs), activation_fn=Identity(), show_progress_bar=False)
    asked = list(dict.fromkeys(question for question, _ in pairs))
    rows = dict(zip(asked, np.array(embed_queries(embed_model, asked)), strict=True))
    questions = np.stack([rows[question] for question, _ in pairs])
    vectors = embed_texts(embed_model, [passage for _, passage in pairs], lambda _: None)
    return np.column_stack([logits, (questions * np.array(vectors)).sum(axis=1)])


def load_cross_encoder(adapter: Path) -> "CrossEncoder":
    """Load the cross-encoder with its adapter merged, to be used in `fast_arithmetic` alone.

    Raises:
        ModelError: The adapter is missing or does not fit.
    """
    from peft import PeftModel
    from sentence_transformers import CrossEncoder
    from transformers.utils import logging

    told = logging.get_verbosity()
    logging.set_verbosity_error()  # the packaged model has no classifier: the adapter brings it
    try:
        model = CrossEncoder(str(packaged_model()), num_labels=1, max_length=LONGEST_INPUT)
        module = model[0]
        module.model = PeftModel.from_pretrained(module.model, str(adapter)).merge_and_unload()
    except Exception as error:  # peft raises anything from KeyError to RuntimeError
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{adapter}: the filter's adapter cannot be loaded ({first})") from error
    finally:
        logging.set_verbosity(told)
    return cast_once(model.eval())
