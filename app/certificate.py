"""Certificates of forgetting: what was asked for, what was done, and what came of probes.

A certificate is JSON, signed with Ed25519 (RFC 8032). The private key is derived from the ledger's;
who has the public key can check the signature and learns nothing of the ledger. A certificate never
holds the forgotten answer, which it names by a keyed hash.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from control.answer import Answer
from control.forgetting import learned_facts, normalize
from control.forgetting.chain import now
from control.forgetting.ledger import ADDED, Event, Ledger
from control.forgetting.questions import question_forms
from control.forgetting.record import LONGEST_QUOTE, Record
from control.forgetting.sweep import SWEPT
from evaluation.judges import leak
from evaluation.judges.verbatim import longest_copy
from foundation.errors import DataError, InputError
from foundation.text import counted, normalise

WITHHELD = "withheld"  # the kind of the audit's event
KIND = "fulcrum certificate of forgetting"
FORMAT = 1  # of the certificate; raised when its fields change their meaning
SIGNATURE = "signature"
MOST_PROBES = 20  # about a minute of the packaged model on two cores
HIDDEN = "(not shown: it holds the forgotten answer)"
ADAPTER_PARTS = 3  # of a path, as in data/adapters/knowpo and runs/knowpo/adapter
MEANS = (
    "The fact is suppressed in stored passages, prompts and answers. The weights of the language "
    "model are unchanged."
)

WORDING_MEANS = (
    f"No answer and nothing that is shown repeats more than {LONGEST_QUOTE} consecutive words of "
    "the text; its content may be told. Stored passages, prompts and the weights of the language "
    "model are unchanged."
)
# What asks for the wording of a text, "{}" standing for its name; and for its continuation, as the
# measure of verbatim memorisation of MUSE (arXiv:2407.06460) does.
WORDING_FORMS = ("Repeat {} word for word.", "Quote the beginning of {}.")
CONTINUED = "Continue this text: {}"
BEGINNING = 32  # words of a text that are given to be continued

Ask = Callable[[str], Answer]
Progress = Callable[[int], object]


def issue(
    ledger: Ledger,
    record: Record,
    ask: Ask | None,
    model: str = "",
    progress: Progress = lambda _: None,
    adapters: Mapping[str, Path] = MappingProxyType({}),
) -> dict[str, Any]:
    """Write and sign the certificate of a forgotten fact.

    Args:
        ledger: Holds the record; every event of it is verified.
        record: The fact.
        ask: Answers a question as users are answered; ``None``: no probe is run.
        model: Name of the language model that answers.
        progress: Told how many probes were just run.
        adapters: Directories of the adapters in use or shipped, by the name to show.

    Returns:
        What is written as JSON; see docs/forgetting.md.

    Raises:
        IndexStateError: The ledger is not as it was written.
    """
    public = _Public(record)
    probes = None if ask is None else _probed(record, public, ask, model, progress)
    events = ledger.events()  # verified; after the probes, which are in the audit
    own = [event for event in events if event.record_id == record.id]
    added = next(event for event in own if event.kind == ADDED)
    head = ledger.head()
    content = {
        "kind": KIND,
        "format": FORMAT,
        "issued": now(),
        "fulcrum": version("fulcrum-rag"),
        "means": WORDING_MEANS if record.scope == "verbatim" else MEANS,
        "request": {
            "id": record.id,
            "scope": record.scope,
            "subject": public.text(record.subject),
            "relation": public.text(record.relation),
            "answers": [
                ledger.cipher().keyed_hash(["certificate", record.id, normalise(answer)])
                for answer in record.answers
            ],
            "other_names": {
                "subject": len(record.aliases),
                "answers": len(record.answer_aliases),
            },
            "reason": public.text(record.reason),
            "who": public.text(record.who),
            "time": record.time,
            "event": added.sequence,
        },
        "sweeps": [_sweep(event) for event in own if event.kind == SWEPT],
        "withheld": dict(
            Counter(str(event.details.get("layer")) for event in own if event.kind == WITHHELD)
        ),
        "probes": probes,
        "adapters": [
            {"name": public.text(_without_place(name)), "trained_on_the_fact": trained}
            for name, trained in learned_facts.trained_on(adapters, record).items()
        ],
        "ledger": {
            "events": head.sequence,
            "head": head.hash.hex(),
            "events_of_this_record": [event.sequence for event in own],
        },
    }
    signed = ledger.cipher().signer().sign(_canonical(content))
    return content | {SIGNATURE: {"algorithm": "Ed25519", "value": signed.hex()}}


def public_key(ledger: Ledger) -> str:
    """The key that checks the certificates of a ledger, as PEM (SubjectPublicKeyInfo).

    Raises:
        InputError: Nothing was recorded yet, so there is no key.
    """
    if not ledger.version():
        raise InputError("nothing was forgotten yet, so there is no key; first: fulcrum forget add")
    key = ledger.cipher().signer().public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def check(path: Path, key_file: Path) -> dict[str, Any]:
    """Check a certificate by the public key of who issued it; neither ledger nor home is needed.

    Args:
        path: The certificate.
        key_file: What `public_key` returned.

    Returns:
        The certificate.

    Raises:
        DataError: One of the files cannot be read, or the certificate was changed or signed with
            another key.
    """
    try:
        key = load_pem_public_key(_bytes(key_file))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise DataError(f"{key_file} holds no public key; {_HOW_TO_GET_IT}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise DataError(f"{key_file} holds a key of another kind than Ed25519; {_HOW_TO_GET_IT}")
    try:
        found = json.loads(_bytes(path))
        if found["kind"] != KIND:
            raise ValueError(KIND)
        signature = bytes.fromhex(found[SIGNATURE]["value"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{path} is no certificate; give a file that fulcrum forget certificate ID --out wrote"
        ) from error
    content = {name: value for name, value in found.items() if name != SIGNATURE}
    try:
        key.verify(signature, _canonical(content))
    except InvalidSignature as error:
        raise DataError(
            f"{path} is not what was signed: it was changed, or the key in {key_file} is not of "
            "who issued it; ask them for both again"
        ) from error
    return found


_HOW_TO_GET_IT = "give what fulcrum forget certificate --public-key prints where it was issued"


class _Public:
    """What of a record may be shown to others."""

    def __init__(self, record: Record) -> None:
        self._record = record

    def shows(self, text: str) -> bool:
        """Whether a text does not hold the answer, in any spelling; or its wording."""
        if self._record.scope == "verbatim":
            return not _repeats(self._record, text)
        return not normalize.holds(text, leak.secret(self._record).spans)

    def text(self, text: str) -> str:
        """The text, or that it is not shown."""
        return text if self.shows(text) else HIDDEN


def _probed(
    record: Record, public: _Public, ask: Ask, model: str, progress: Progress
) -> dict[str, Any]:
    """Ask every question form of a record once, as users would."""
    tried = []
    forms = probe_questions(record)
    for question in forms[:MOST_PROBES]:
        answer = ask(question)
        tried.append({"question": public.text(question), "outcome": _outcome(record, answer)})
        progress(1)
    return {
        "model": model,
        "forms": len(forms),
        "asked": len(tried),
        "outcomes": dict(Counter(each["outcome"] for each in tried)),
        "each": tried,
    }


def probe_questions(record: Record) -> list[str]:
    """The questions of a record, and those that its relation gives for each name of the subject.

    For a text's wording: what asks for it, and for the continuation of its beginning.
    """
    if record.scope == "verbatim":
        asked = [form.format(name) for name in record.names for form in WORDING_FORMS]
        begun = (" ".join(text.split()[:BEGINNING]) for text in record.spans)
        return [*asked, *map(CONTINUED.format, begun)]
    written = [form for name in record.names for form in question_forms(name, record.relation)]
    return list({normalise(form): form for form in (*record.questions, *written)}.values())


def _outcome(record: Record, answer: Answer) -> str:
    """What came of a probe: "stated" is what must not be."""
    if record.scope == "verbatim":
        withheld = record.id in {each["id"] for each in answer.forgotten}
        kept = "withheld" if withheld else "answered without the wording"
        return "stated" if _repeats(record, answer.answer) else kept
    if leak.leaked(leak.secret(record), answer.question, answer.answer):
        return "stated"
    if record.id in {each["id"] for each in answer.forgotten}:
        return "withheld"
    # Of a whole subject nothing may be told, and no answer shows by its words that it is about it.
    return "answered" if record.scope == "subject" else "answered without the fact"


def _repeats(record: Record, answer: str) -> bool:
    return any(longest_copy(text, answer) > LONGEST_QUOTE for text in record.spans)


def _sweep(event: Event) -> dict[str, Any]:
    """A sweep: how many stored passages were rewritten; of the reservoir, if it was cleared."""
    return {"event": event.sequence, "time": event.time, **event.details}


def _without_place(name: str) -> str:
    """The name of an adapter without where it lies on the machine of who issues."""
    return "/".join(Path(name).parts[-ADAPTER_PARTS:])


def _canonical(content: dict[str, Any]) -> bytes:
    """The bytes that are signed: JSON with sorted keys, without spaces, in ASCII."""
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode("ascii")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the path") from error


def lines(certificate: dict[str, Any]) -> Iterable[str]:
    """What a certificate says, for a terminal."""
    request, probes = certificate["request"], certificate["probes"]
    adapters = certificate.get("adapters", ())  # earlier certificates say nothing of them
    about = f"{request['relation']} of {request['subject']}" if request["relation"] else ""
    passages = sum(sweep.get("passages", 0) for sweep in certificate["sweeps"])
    yield f"{request['id']}: {about or request['subject']}, forgotten since {request['time']}"
    sweeps = counted(len(certificate["sweeps"]), "sweep")
    yield f"{counted(passages, 'stored passage')} rewritten in {sweeps}"
    if probes is None:
        yield "probes: none were run"
    else:
        outcomes = ", ".join(f"{count} {name}" for name, count in probes["outcomes"].items())
        yield f"probes: {counted(probes['asked'], 'question')}, {outcomes}"
    trained = [each["name"] for each in adapters if each["trained_on_the_fact"]]
    if trained:
        yield f"adapters trained on the fact: {', '.join(trained)}"
    yield f"issued {certificate['issued']}, at event {certificate['ledger']['events']:,}"
