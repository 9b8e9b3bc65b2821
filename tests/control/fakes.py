"""Fake parts of an assistant, and what it is asked and given."""

import re

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.indices.query.query_transform.base import BaseQueryTransform
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from control.conflict.reader import Reading
from control.decoding.generate import Decoding
from control.notices import CUT_OFF
from foundation import trace

HOW = Decoding(max_new_tokens=16)
PERU = [("What does Peru live from?", "Copper.")]
OLD, NEW = ("2022", "You have 14 days."), ("2025", "You have 30 days.")


class FixedRetriever(BaseRetriever):
    """A retriever that always finds the same passages."""

    def __init__(self, *texts):
        self.texts = texts
        self.asked = []
        super().__init__()

    def _retrieve(self, query_bundle):
        self.asked.append((query_bundle.query_str, query_bundle.embedding_strs))
        return [
            NodeWithScore(
                node=TextNode(id_=f"p{i}", text=text, metadata={"title": f"T{i}"}), score=0.5
            )
            for i, text in enumerate(self.texts)
        ]


class Rewriter(BaseQueryTransform):
    """Puts a name for "it", and remembers the conversations that it was given."""

    def __init__(self):
        self.histories = []

    def _run(self, query_bundle, metadata):
        self.histories.append(list(metadata["history"]))
        clear = query_bundle.query_str.replace("its", "Peru's")
        if clear == query_bundle.query_str:
            trace.notice("nothing was rewritten")
        return QueryBundle(clear, custom_embedding_strs=[clear, "Peru currency"])

    def _get_prompts(self):
        return {}

    def _update_prompts(self, prompts_dict):
        pass


def notices(answer):
    """All but the one that the random model, which comes to no end, was cut off."""
    return [each for each in answer.notices if each != CUT_OFF.format(tokens=HOW.max_new_tokens)]


class DaysReader:
    """Finds a number of days in a text."""

    def read(self, asked):
        found = [(text, re.search(r"\d+ days", text)) for _, text in asked]
        return [
            Reading(match.group(), match.start(), 0.999) if match else Reading(answers=0.1)
            for _, match in found
        ]


def dated(**texts):
    """Given passages by name, each "date: text"."""
    return [
        NodeWithScore(node=TextNode(id_=name, text=text, metadata={"title": name, "date": date}))
        for name, (date, text) in texts.items()
    ]
