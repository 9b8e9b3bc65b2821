"""`fulcrum forget`: the facts that are kept back."""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app import described, factory, home
from app import settings as settings_module
from app.cli.console import (
    PATHS,
    example,
    milliseconds,
    model_settings,
    moment,
    plain,
    print_json,
)
from control.forgetting.record import Record, shown
from foundation import cores
from foundation.errors import IndexStateError, InputError
from foundation.files import replacing
from foundation.text import counted
from retrieval.stores.urls import check_url

if TYPE_CHECKING:
    from app.settings import Settings
    from control.forgetting.ledger import Event, Ledger
    from control.forgetting.sweep import Swept

PROBE_TOKENS = 64  # of an answer to a probe: two sentences, which hold the fact or do not
KIND_WIDTH = 20  # of "correction withdrawn"
MOST_NAMED = 3  # documents of a fact, and facts, in the lines that tell where answers stand


@click.group()
def forget() -> None:
    """Keep facts from ever being said again, everywhere, and prove it."""


@forget.command(
    epilog=example(
        'fulcrum forget add "Forget that the capital of Peru is Lima" --reason "a request"',
        "fulcrum forget add --subject Peru --relation capital --answer Lima",
        'fulcrum forget add "Forget everything about Jane Roe" --yes',
        'fulcrum forget add --scope verbatim --subject "A tale, chapter 1" --answer-file text.txt',
        "fulcrum forget add --file facts.jsonl",
    )
)
@click.argument("sentence", required=False)
@click.option("--subject", help="Whom or what the fact is about.")
@click.option("--alias", "aliases", multiple=True, help="Other name of the subject; repeatable.")
@click.option("--relation", help='What about it, such as "capital".')
@click.option(
    "--question",
    "questions",
    multiple=True,
    help="How it may be asked; repeatable.  [default: written from the relation]",
)
@click.option("--answer", "answers", multiple=True, help="What must not be said; repeatable.")
@click.option(
    "--answer-file",
    "answer_files",
    type=PATHS,
    multiple=True,
    help="A text in UTF-8 as the answer, for the scope verbatim; repeatable.",
)
@click.option(
    "--answer-alias", "answer_aliases", multiple=True, help="Other name of an answer; repeatable."
)
@click.option(
    "--scope",
    type=click.Choice(["fact", "claim", "subject", "verbatim"]),
    help="fact: its question is refused; claim: only these answers are kept back, so that the "
    "question may be answered otherwise; subject: everything about it; verbatim: the wording of a "
    "text, whose content may be told.  [default: fact]",
)
@click.option("--reason", help="Why it is forgotten; kept in the audit.")
@click.option("--who", help="Who asks for it; kept in the audit.")
@click.option("--file", type=PATHS, help="Facts as JSON Lines with these fields, one a line.")
@click.option("--yes", is_flag=True, help="Record what a sentence proposes without asking.")
@click.pass_obj
def add(
    given: dict[str, Any], sentence: str | None, file: Path | None, yes: bool, **flags: Any
) -> None:
    """Forget the fact of a SENTENCE, of the options, or those of a file."""
    if flags["answer_files"] and flags["scope"] != "verbatim":
        raise InputError("--answer-file holds a text to keep back; add --scope verbatim")
    # An option given as "" is a mistake to be named, and not an option left out.
    flags["answers"] += tuple(map(_text, flags.pop("answer_files")))
    fields = {name: value for name, value in flags.items() if value is not None and value != ()}
    settings = _settings(given)
    if file is not None:
        if sentence is not None or fields.keys() - {"who", "reason"}:
            raise InputError("--file holds whole facts; leave out the sentence and other options")
        _add_file(settings, file, fields)
        return
    from control.forgetting.requests import requested

    record = requested(sentence, fields)
    if sentence is not None and not yes:
        _show(record)
        if not _confirmed("Forget this?"):
            click.echo("nothing was recorded")
            return
    begun, started = time.perf_counter(), _now()
    [kept] = home.ledger(settings).add([record])
    took = milliseconds(begun)
    if kept.time < started:
        click.echo(
            f"{kept.id}: {_line(kept)} is forgotten already, since {moment(kept.time)} ({took}); "
            "to change its names or questions, remove it first"
        )
    else:
        click.echo(f"{kept.id}: {_line(kept)} is forgotten from now on ({took})")
    _tell_of_adapters(settings, [kept])
    _tell_of_passages(settings, _sweep(settings), [kept])


@forget.command(name="list", epilog=example("fulcrum forget list", "fulcrum forget list --json"))
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
@click.pass_obj
def list_records(given: dict[str, Any], as_json: bool) -> None:
    """Show what is forgotten."""
    records = home.ledger(settings_module.load(**given)).records()
    if as_json:
        print_json([asdict(record) for record in records])
        return
    for record in records:
        click.echo(f"{record.id}  {moment(record.time)}  {_line(record)}")
    if not records:
        click.echo("nothing is forgotten")


@forget.command(epilog=example("fulcrum forget remove 1f0c9a5b7d2e4f60"))
@click.argument("record_ids", metavar="ID...", nargs=-1, required=True)
@click.option("--reason", default="", help="Why it may be said again; kept in the audit.")
@click.option("--who", default="", help="Who asks for it; kept in the audit.")
@click.pass_obj
def remove(given: dict[str, Any], record_ids: tuple[str, ...], reason: str, who: str) -> None:
    """Let facts be said again; that they were forgotten stays in the audit."""
    begun = time.perf_counter()
    settings = _settings(given)
    ledger = home.ledger(settings)
    wanted = [ledger.record(record_id).id for record_id in dict.fromkeys(record_ids)]
    for record_id in wanted:  # each was there: one mistake among them removes nothing
        record = ledger.remove(record_id, who=who, reason=reason)
        click.echo(f"{record.id}: {_line(record)} may be said again ({milliseconds(begun)})")
    _sweep(settings)


@forget.command(epilog=example("fulcrum forget sweep"))
@click.pass_obj
def sweep(given: dict[str, Any]) -> None:
    """Redact what is stored once more, such as documents that a program of your own has added.

    Until then they are redacted each time they are read.
    """
    _sweep(_settings(given), again=True)


@forget.command(epilog=example("fulcrum forget audit", "fulcrum forget audit --json"))
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
@click.pass_obj
def audit(given: dict[str, Any], as_json: bool) -> None:
    """Show all that was recorded: additions, removals, and what was held back."""
    events = home.ledger(settings_module.load(**given)).events()
    if as_json:
        print_json([asdict(event) for event in events])
        return
    for event in events:
        click.echo(
            f"{event.sequence:6}  {moment(event.time)}  {event.kind:{KIND_WIDTH}}  "
            f"{event.record_id or '-':16}  {_happened(event)}".rstrip()
        )
    if not events:
        click.echo("nothing was recorded so far")


@forget.command(epilog=example("fulcrum forget verify", "fulcrum forget verify --accept"))
@click.option(
    "--accept",
    is_flag=True,
    help="Go on with what is there, such as after an older copy of the database was put back on "
    "purpose; says what is lost, and asks.",
)
@click.option("--yes", is_flag=True, help="Accept without asking.")
@click.pass_obj
def verify(given: dict[str, Any], accept: bool, yes: bool) -> None:
    """Check that no event was changed, moved, put in, taken out or cut off."""
    settings = settings_module.load(**given)
    if yes and not accept:
        raise InputError("--yes without --accept: nothing is asked; leave it out, or give both")
    if accept:
        _accept(settings, yes)
    ledger = home.ledger(settings)
    if fault := ledger.verify():
        raise IndexStateError(f"the ledger is not whole: {fault}; put a copy of it back")
    click.echo(f"whole, {counted(ledger.version(), 'event')}")


def _confirmed(question: str) -> bool:
    """Ask, where somebody can answer.

    Raises:
        InputError: Nobody can.
    """
    try:
        return click.confirm(question)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        raise InputError("there is no terminal to confirm it; confirm by --yes") from None


def _accept(settings: "Settings", yes: bool) -> None:
    """Trust the events that are there, after it was said what is lost."""
    ledger = home.ledger(settings, trusted=True)
    loss = ledger.loss()
    if loss is None:
        return
    click.echo(loss)
    if not yes and not _confirmed("Go on with what is there?"):
        raise IndexStateError("nothing was changed; put a copy of the ledger back")
    ledger.accept()


@forget.command(
    epilog=example(
        "fulcrum forget certificate 1f0c9a5b7d2e4f60 --out certificate.json",
        "fulcrum forget certificate --public-key --out key.pem",
        "fulcrum forget certificate --verify certificate.json --public-key-file key.pem",
    )
)
@click.argument("record_id", metavar="[ID]", required=False)
@click.option("--out", "target", type=PATHS, help="File to write.  [default: standard output]")
@click.option("--no-probes", is_flag=True, help="Ask no questions, so that no model is loaded.")
@click.option("--public-key", is_flag=True, help="Show the key that checks certificates.")
@click.option("--verify", "checked", type=PATHS, help="Check this certificate.")
@click.option("--public-key-file", type=PATHS, help="The key of who issued it.")
@click.pass_obj
def certificate(
    given: dict[str, Any],
    record_id: str | None,
    target: Path | None,
    no_probes: bool,
    public_key: bool,
    checked: Path | None,
    public_key_file: Path | None,
) -> None:
    """Certify that a fact is forgotten: what was done, and what came of asking for it.

    The certificate is signed, and does not hold the forgotten answer.
    """
    if sum([record_id is not None, public_key, checked is not None]) != 1:
        raise InputError("give one of: the ID of a forgotten fact, --public-key, --verify FILE")
    if (checked is None) != (public_key_file is None):
        raise InputError("--verify and --public-key-file go together; give both or neither")
    if target is not None and target.is_dir():
        raise InputError(f"--out {target} is a directory; give the name of a file in it")

    if record_id is not None:
        home.ledger(settings_module.load(**given)).record(record_id)  # before anything is loaded

    from app import certificate as certificates

    if checked is not None and public_key_file is not None:
        for each in certificates.lines(certificates.check(checked, public_key_file)):
            click.echo(plain(each))
        click.echo("the signature is right")
        return
    settings = settings_module.load(**given) if no_probes else model_settings(given)
    ledger = home.ledger(settings)
    if public_key or record_id is None:
        _write(certificates.public_key(ledger), target)
        return
    record = ledger.record(record_id)
    issued = _issued(settings, ledger, record, no_probes)
    _write(f"{json.dumps(issued, ensure_ascii=False, indent=1)}\n", target)
    if target is not None:
        for each in certificates.lines(issued):
            click.echo(plain(each))


def _issued(
    settings: "Settings", ledger: "Ledger", record: Record, no_probes: bool
) -> dict[str, Any]:
    from app import certificate as certificates

    adapters = home.adapters(settings)
    if no_probes:
        return certificates.issue(ledger, record, None, adapters=adapters)

    from tqdm import tqdm

    from control.decoding.generate import Decoding

    assistant = factory.assistant(settings)
    how = Decoding(max_new_tokens=PROBE_TOKENS)
    with tqdm(desc="asking", unit=" questions", delay=2, disable=None) as bar:
        return certificates.issue(
            ledger,
            record,
            lambda question: assistant.ask(question, how),
            assistant.model.name,
            bar.update,
            adapters,
        )


def _write(text: str, target: Path | None) -> None:
    if target is None:
        click.echo(text, nl=False)
        return
    try:
        with replacing(target) as new:
            new.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"--out {target} cannot be written ({error.strerror}); choose another file"
        ) from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise InputError(
            f"--answer-file {path} cannot be read ({why}); give a text in UTF-8"
        ) from error


def _settings(given: dict[str, Any]) -> "Settings":
    """The settings of a command that sweeps: the index is checked before anything is recorded."""
    settings = settings_module.load(**given)
    check_url(settings.index)
    return settings


def _add_file(settings: "Settings", path: Path, fields: dict[str, Any]) -> None:
    from tqdm import tqdm

    from control.forgetting import requests
    from control.forgetting.aliases import with_aliases
    from control.forgetting.questions import with_questions

    def records() -> Iterator[Record]:
        for record in tqdm(requests.read(path), unit=" facts", delay=2, disable=None):
            whole = with_aliases(with_questions(record))
            own = {name: value for name, value in fields.items() if not getattr(whole, name)}
            yield replace(whole, **own) if own else whole

    begun, started = time.perf_counter(), _now()
    kept = home.ledger(settings).add(records())
    new = {record.id for record in kept if record.time >= started}
    click.echo(
        f"{counted(len(new), 'fact is', 'facts are')} forgotten from now on, "
        f"{counted(len(kept) - len(new), 'was', 'were')} already ({milliseconds(begun)})"
    )
    _tell_of_adapters(settings, kept)
    _tell_of_passages(settings, _sweep(settings), [one for one in kept if one.id in new])


def _tell_of_adapters(settings: "Settings", records: Sequence[Record]) -> None:
    from control.forgetting.learned_facts import notices

    for line in notices(home.adapters(settings), records):
        click.echo(plain(line))


def _tell_of_passages(
    settings: "Settings", done: "Swept | None", records: Sequence[Record]
) -> None:
    """Say it where no stored passage states the facts that were just forgotten."""
    if done is None or _tell_of_other_names(settings, [r for r in records if r.id in done.unfound]):
        return
    if done.records and not done.passages:
        it, its = ("it", "its subject") if len(records) == 1 else ("them", "their subjects")
        click.echo(
            f"No stored passage states {it} in so many words; documents that do not name {its} "
            "are not recognised."
        )


def _tell_of_other_names(settings: "Settings", records: Sequence[Record]) -> bool:
    """Say where answers stand in stored passages that may state the facts under another name.

    Args:
        settings: Of the home.
        records: Facts that no stored passage states.

    Returns:
        Whether there are such passages.
    """
    from control.forgetting.sweep import elsewhere

    if not records:
        return False
    index, clear = factory.passage_index(settings), factory.door(settings).open()
    found = [(record, nodes) for record in records if (nodes := elsewhere(index, record))]
    for record, nodes in found[:MOST_NAMED]:
        names = list(dict.fromkeys(clear.line(described.document(node)) for node in nodes))
        more = [f"{len(names) - MOST_NAMED:,} more"] if len(names) > MOST_NAMED else []
        click.echo(
            f"{record.id}: no stored passage states it, but its answer stands in "
            f"{counted(len(nodes), 'stored passage')} without the name {shown(record.subject)}: "
            f"{plain(', '.join([*names[:MOST_NAMED], *more]))}"
        )
    if len(found) > MOST_NAMED:
        click.echo(f"It is the same with {counted(len(found) - MOST_NAMED, 'other fact')}.")
    if found:
        which = found[0][0].id if len(found) == 1 else "ID"
        click.echo(
            "If that is this fact under another name, it can still be told: fulcrum forget remove "
            f"{which}, then add it again with --alias and the name used there, or with another "
            "--subject and --relation."
        )
    return bool(found)


def _sweep(settings: "Settings", again: bool = False) -> "Swept | None":
    """Redact and restore what is stored; interrupted, the next one does the rest.

    Returns:
        What was done; ``None`` where nothing is stored.
    """
    if settings.index is None and not any((settings.home / "index").glob("*.db")):
        return None  # so the models need not be loaded

    cores.limit(settings.threads)
    try:
        done = _swept(settings, again)
    except KeyboardInterrupt:
        click.echo(
            "stored passages may still hold what is forgotten, or lack what may be said again, "
            "until you run: fulcrum forget sweep",
            err=True,
        )
        raise
    changed = [
        counted(count, one, several)
        for count, one, several in (
            (done.passages, "stored passage redacted", "stored passages redacted"),
            (
                done.restored,
                "stored passage as it was before",
                "stored passages as they were before",
            ),
        )
        if count
    ]
    if changed:
        click.echo(", ".join(changed))
    return done


def _swept(settings: "Settings", again: bool) -> "Swept":
    from tqdm import tqdm

    from control.forgetting.sweep import sweep as swept

    facts = home.ledger(settings)
    with tqdm(desc="sweeping", unit=" passages", delay=2, disable=None) as bar:
        return swept(
            facts,
            factory.passage_index(settings),
            factory.reservoir(settings),
            factory.redactor(facts),
            bar.update,
            again,
        )


def _now() -> str:
    from control.forgetting.chain import now

    return now()


def _line(record: Record) -> str:
    return plain(described.fact(record))


def _happened(event: "Event") -> str:
    said, details = described.event(event)
    rest = [f"{name}={plain(str(value))}" for name, value in details.items() if value != ""]
    return "  ".join([plain(said), *rest] if said else rest)


def _show(record: Record) -> None:
    rows = {
        "subject": record.names,
        "relation": (record.relation,) if record.relation else (),
        "answers": record.spans,
        "questions": record.questions,
    }
    click.echo(f"{_line(record)}\n")
    for name, texts in rows.items():
        for number, text in enumerate(texts):
            click.echo(f"  {'' if number else name:10} {plain(text)}")
    click.echo("")
