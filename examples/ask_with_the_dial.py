"""Ask one question of a passage that is wrong, at three settings of the dial.

Run: python examples/ask_with_the_dial.py
"""

from tempfile import TemporaryDirectory

from llama_index.core.schema import NodeWithScore, TextNode

from app import factory, settings
from control.decoding.generate import Decoding

PASSAGE = "The seat of government of Norway is Cairo. Cairo is the capital of Norway."
given = [NodeWithScore(node=TextNode(text=PASSAGE, metadata={"title": "Norway"}))]

with TemporaryDirectory() as home:
    assistant = factory.assistant(settings.load(home=home))
    for alpha in (0.0, 0.5, 1.0):  # passages only, plain RAG, memory only
        answer = assistant.ask("What is the capital of Norway?", Decoding(alpha=alpha), given)
        sources = {token.source for token in answer.tokens}
        print(f"alpha {alpha}: {answer.answer}  [tokens from: {', '.join(sorted(sources))}]")
        print(f"  {answer.verdict or 'memory and passages agree'}")
