"""Put a folder of documents into an index, ask, and print the passages that were found.

Run: python examples/ingest_a_folder.py [FOLDER [QUESTION]]
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from app import factory, settings
from control.decoding.generate import Decoding
from foundation.text import counted

folder, question = Path(__file__).parent / "documents", "Who is the harbour master of Lindvik?"
folder, question = (*sys.argv[1:], *(folder, question)[len(sys.argv) - 1 :])

with TemporaryDirectory() as home:
    chosen = settings.load(home=home)
    index = factory.passage_index(chosen)
    report = index.ingest([folder])
    print(f"{counted(report.documents, 'document')} in {counted(report.passages, 'passage')}")
    answer = factory.assistant(chosen, index=index).ask(question, Decoding())
    print(answer.answer)
    for source in answer.sources:
        mark = "read" if source.kept else "left out"
        print(f"  {mark}: {source.title or source.id} (cosine {source.score:.2f}): {source.reason}")
