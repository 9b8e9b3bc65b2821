"""Forget a fact, ask for it, let it be said again, and check that the audit is whole.

Run: python examples/forget_a_fact.py
"""

from tempfile import TemporaryDirectory

from app import factory, home, settings
from control.decoding.generate import Decoding
from control.forgetting.requests import requested

QUESTION = "What is the capital of Peru?"

with TemporaryDirectory() as directory:
    chosen = settings.load(home=directory)
    assistant, ledger = factory.assistant(chosen), home.ledger(chosen)
    print("before:   ", assistant.ask(QUESTION, Decoding(), given=[]).answer)
    [record] = ledger.add([requested("The capital of Peru is Lima", {"reason": "a request"})])
    print("forgotten:", assistant.ask(QUESTION, Decoding(), given=[]).answer)
    ledger.remove(record.id, who="example", reason="the request was withdrawn")
    print("after:    ", assistant.ask(QUESTION, Decoding(), given=[]).answer)
    for event in ledger.events():
        print(f"  {event.sequence} {event.kind} {event.record_id}")
    print("the audit is", ledger.verify() or "whole")
