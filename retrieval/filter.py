"""The Knowledge Filter of ERM4: keeps only passages that hold a clear answer to the question.

In ERM4 a language model judges each passage in one word; here a judge gives a probability, so that
the threshold can be chosen on data. By default it weighs the cosine and the rank, and for a model
that reads many passages also how likely an extractive reader finds an answer in the passage.
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
from scipy.special import expit, logit

from foundation import trace
from foundation.cache import BatchCache
from foundation.errors import InputError, ModelError
from foundation.files import replacing
from retrieval.embedding import (
    bfloat16_autocast,
    cast_to_bfloat16,
    embed_queries,
    embed_texts,
    packaged_model,
)

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

LABELS = (" no", " yes")
JUDGEMENT = "judgement.json"
STRICT_THRESHOLD = (
    0.75  # reached for 94 % of plain questions, and for 9 % of those that need two passages
)
# Least share of the likeliest passage's probability. Of the ten likeliest of 20 passages, all hold
# what answers for 91.7 % of 120 calibration questions to real documents, those from here on for
# 88.3 (6.4 passages), and those from 0.1 on for 85.0 (4.3).
NEAR_BEST = 0.05
# The same for models that read few passages, which less likely ones distract more than they help.
# By cosine and rank 1.2 passages of a built-in question are left, and 1.8 of one to real documents.
NEAR_BEST_OF_FEW = 0.3
CACHED_PASSAGES = 512  # the trigger judges passages that are judged again afterwards
LONGEST_INPUT = 256  # word pieces of question and passage that the cross-encoder reads
SUREST = 1 - 1e-4  # probability of an answer beyond which the reader is as sure as it can be

Judge = Callable[[str, Sequence[str]], list[float]]
"""(question, passages) to the probability that each passage holds a clear answer, in [0, 1]."""
Logits = Callable[[str, Sequence[str]], NDArray[np.float64]]
"""(question, passages) to the logit of that probability by some model, shape (passages,)."""


def judge_prompt(question: str, passage: str) -> str:
    """Return the prompt whose next word, " yes" or " no", is the judgement of a language model."""
    return f"Passage: {passage}\nQuestion: {question}\nDoes the passage answer the question?"


class KnowledgeFilter(BaseNodePostprocessor):
    """Drops passages without a clear answer to the question; the others come likeliest first.

    A passage is kept if its probability reaches the threshold, and a share of the highest one. The
    judge reads a passage by itself; that a search ranks it high is further evidence, in the place
    of a prior: the logarithm of its rank, weighed, is taken from the logit of its probability.

    A question may have several queries (``custom_embedding_strs``), and no passage may answer all
    of it. So the best passage of each query has its probability for that query. The first passages
    are those that the queries ranked first, as `interleave` puts them.
    """

    threshold: float = Field(0.5, description="least probability of a passage that is kept")
    rank_weight: float = Field(0.0, description="weight of the logarithm of the rank, from 1")
    near_best: float = Field(0.0, description="least share of the highest probability")
    _judge: Judge = PrivateAttr()
    _recent: BatchCache[tuple[str, str], float] = PrivateAttr(
        default_factory=lambda: BatchCache(CACHED_PASSAGES)
    )
    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)

    def __init__(
        self, judge: Judge, threshold: float, rank_weight: float = 0.0, near_best: float = 0.0
    ) -> None:
        """Filter by a judge.

        Raises:
            InputError: The threshold is no probability.
        """
        if not 0 <= threshold <= 1:
            raise InputError(f"the filter's threshold is {threshold}; give a number from 0 to 1")
        super().__init__()
        self.threshold, self.rank_weight, self.near_best = threshold, rank_weight, near_best
        self._judge = judge

    @property
    def judge(self) -> Judge:
        """The judge."""
        return self._judge

    def probabilities(self, question: str, passages: Sequence[str]) -> list[float]:
        """Return how likely each passage holds a clear answer; 0 for what is not finite."""

        def judged(new: list[tuple[str, str]]) -> list[float]:
            probabilities = self._judge(question, [passage for _, passage in new])
            return [each if math.isfinite(each) else 0.0 for each in probabilities]

        with self._lock:  # a judge's tokenizer serves one at a time
            return self._recent.get([(question, passage) for passage in passages], judged)

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise InputError("the filter was asked without a question; give query_str")
        texts = [each.node.get_content(MetadataMode.EMBED) for each in nodes]
        queries = [text for text in query_bundle.embedding_strs if text != query_bundle.query_str]
        probabilities = self.probabilities(query_bundle.query_str, texts)
        for query in queries if nodes else ():
            of_query = self.probabilities(query, texts[: len(queries) + 1])
            best = of_query.index(max(of_query))
            probabilities[best] = max(probabilities[best], of_query[best])
        ranks = np.arange(1, len(nodes) + 1)
        likely = expit(logit(probabilities) - self.rank_weight * np.log(ranks))
        least = max(self.threshold, self.near_best * likely.max(initial=0.0))
        for each, probability in zip(nodes, likely, strict=True):
            trace.verdict(each.node_id, float(probability), bool(probability >= least))
        order = np.argsort(-likely, kind="stable")
        return [nodes[place] for place in order if likely[place] >= least]


@dataclass(frozen=True)
class JudgeCalibration:
    """The logistic regression of a judge: from logit, cosine and rank to one probability.

    Fitted, like the threshold, on questions that no part was trained on.

    Attributes:
        logit: Weight of the cross-encoder's logit; 0 for the judge by cosine.
        cosine: Weight of the cosine.
        bias: Added to both.
        threshold: Probability that 98 % of answering passages reach.
        rank: Weight of the logarithm of the passage's rank in the search, from 1, taken from them.
    """

    logit: float
    cosine: float
    bias: float
    threshold: float
    rank: float = 0.0

    @classmethod
    def load(cls, path: Path) -> "JudgeCalibration":
        """Read it from a file.

        Raises:
            ModelError: It is missing or damaged.
        """
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ModelError(
                f"{path}: the filter's judgement cannot be read ({error}); "
                "train it again by: fulcrum train filter --out DIR"
            ) from error

    def save(self, path: Path) -> None:
        """Write it into a file."""
        with replacing(path) as new:
            new.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


class EvidenceJudge:
    """Judges by the cosine of question and passage and by what a model says that has read both.

    With the reader's logits, or those of the cross-encoder (`CrossEncoderLogits`); or by the cosine
    alone, which the search has computed already.
    """

    def __init__(
        self, fitted: JudgeCalibration, embed_model: BaseEmbedding, logits: Logits | None = None
    ) -> None:
        """Take the calibration, and the embedding model and the logits that it was fitted on."""
        self._fitted = fitted
        self._embed_model = embed_model
        self._logits = logits

    def __call__(self, question: str, passages: Sequence[str]) -> list[float]:
        """Judge passages in one batch."""
        if not passages:
            return []
        pairs = [(question, passage) for passage in passages]
        weighed = self._fitted.cosine * cosines(self._embed_model, pairs) + self._fitted.bias
        if self._logits is not None:
            weighed = weighed + self._fitted.logit * self._logits(question, passages)
        likely: list[float] = expit(weighed).tolist()
        return likely


def reader_logits(answers: Sequence[float]) -> NDArray[np.float64]:
    """The logits of a reader's probabilities that texts answer, shape (texts,), bounded."""
    bounded: NDArray[np.float64] = logit(np.clip(answers, 1 - SUREST, SUREST))
    return bounded


class CrossEncoderLogits:
    """The logits of a cross-encoder of MiniLM size that reads question and passage together.

    It is the packaged embedding model with a classifier on top and an adapter merged into its
    weights, loaded at the first question.
    """

    def __init__(self, adapter: Path) -> None:
        """Name the adapter's directory, written by ``retrieval_modules.train_cross_encoder``."""
        self._adapter = adapter
        self._loading = threading.Lock()
        self._model: CrossEncoder | None = None

    def __call__(self, question: str, passages: Sequence[str]) -> NDArray[np.float64]:
        """Read passages in one batch."""
        from torch.nn import Identity

        with self._loading:
            if self._model is None:
                self._model = load_cross_encoder(self._adapter)
        pairs = [(question, passage) for passage in passages]
        with bfloat16_autocast(self._model):
            logits: NDArray[np.float64] = self._model.predict(
                pairs, activation_fn=Identity(), show_progress_bar=False
            )
        return logits


def cosines(embed_model: BaseEmbedding, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
    """Compute the cosine of each question and passage, shape (pairs,)."""
    distinct = list(dict.fromkeys(question for question, _ in pairs))
    rows = dict(zip(distinct, np.array(embed_queries(embed_model, distinct)), strict=True))
    questions = np.stack([rows[question] for question, _ in pairs])
    vectors = embed_texts(embed_model, [passage for _, passage in pairs], lambda _: None)
    return (questions * np.array(vectors)).sum(axis=1)


def load_cross_encoder(adapter: Path) -> "CrossEncoder":
    """Load the cross-encoder with its adapter merged, to be used in `bfloat16_autocast` alone.

    Raises:
        ModelError: The adapter is missing or does not fit.
    """
    from peft import PeftModel
    from sentence_transformers import CrossEncoder
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # the packaged model has no classifier: the adapter brings it
    try:
        model = CrossEncoder(str(packaged_model()), num_labels=1, max_length=LONGEST_INPUT)
        module = model[0]
        module.model = PeftModel.from_pretrained(module.model, str(adapter)).merge_and_unload()
    except Exception as error:  # peft raises anything from KeyError to RuntimeError
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{adapter}: the filter's adapter cannot be loaded ({first})") from error
    finally:
        logging.set_verbosity(verbosity)
    return cast_to_bfloat16(model.eval())
