"""The reader: which words of a text answer a question, if any do.

Extractive reading as BERT does it on SQuAD 2.0 (Devlin et al. 2019, arXiv:1810.04805, section 4.3):
an encoder reads question and text together, and of each word piece it is scored how likely the
answer starts and ends there; the first piece of all stands for "no answer". The encoder is the
packaged embedding model with a low-rank adapter (`training.reader`). One reader serves passages,
drafts and answers, whichever engine wrote them. Rows of tables it reads one by one, and
`control.conflict.tables` chooses the cell that answers.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from control.conflict.tables import CellWeights, Table, load_weights
from control.encoders import batches, quietly, read_adapter
from control.engines.transformers import first_line, preferred_device, preferred_dtype
from control.forgetting.parts import parts
from control.prompts import with_title
from foundation.errors import ModelError
from foundation.tables import Cell, cells, rows_alone

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LONGEST = 512  # word pieces of question and text that the encoder reads
LONGEST_ANSWER = 30  # word pieces, as in BERT's own evaluation
# What is asked about documents themselves; the reader was trained on these words.
DATE_QUESTION = "What is the date of this document?"
REPLACES_QUESTION = "What does this document replace?"
# Least probability that they are answered. Of 114 documents held out of the training
# (`training/dated.jsonl`) 95 state their date, of which 83 are found from here on and 80 from 0.7
# on, and 3 or 1 of the others get one; of 26 that say what they replace 20 are found, and 2
# or 1 of the 88 others is said to.
LEAST_SAID = 0.5
MOST_ROWS = 32  # of one passage that are read alone
UNREAD = -20.0  # log-probability of a cell beyond what the encoder reads of its row
ENDS = ".!?\N{HORIZONTAL ELLIPSIS}"  # of a sentence
EVEN = 0.5  # probability from which an answer is likelier than none
# Characters of a document where its date may stand: a letter head, a signature. Not measured.
BEGINNING, END = 1_200, 600
LONGEST_FRAGMENT = 5  # words of an answer that may be no sentence
IT_IS = "It is "  # makes one of it


@dataclass(frozen=True)
class Reading:
    """What a text answers.

    Attributes:
        answer: The words of the text that answer; empty where none do.
        start: Its first character in the text.
        answers: The probability that the text answers at all, in [0, 1].
    """

    answer: str = ""
    start: int = 0
    answers: float = 0.0

    @property
    def end(self) -> int:
        """The character after the answer."""
        return self.start + len(self.answer)


@dataclass(frozen=True)
class PieceScores:
    """How likely an answer starts and ends at each word piece of a question and a text.

    Attributes:
        text: The text.
        offsets: First and last character of each piece, shape (pieces, 2).
        start: Log-probabilities of the first piece of an answer, shape (pieces,); that of the first
            piece of all is that of no answer, outside the text it is minus infinity.
        end: The same of the last one.
    """

    text: str
    offsets: Tensor
    start: Tensor
    end: Tensor

    @property
    def nothing(self) -> float:
        """The log-probability of no answer."""
        return float(self.start[0] + self.end[0])

    def best(self) -> Reading:
        """The likeliest span of the text, unless no answer is likelier."""
        spans = self.start[:, None] + self.end[None, :]
        nothing = float(spans[0, 0].exp())
        allowed = torch.ones_like(spans, dtype=torch.bool).triu().tril(LONGEST_ANSWER - 1)
        allowed[0] = False
        spans = spans.masked_fill(~allowed, -torch.inf)
        first, last = divmod(int(spans.argmax()), spans.shape[1])
        likely = float(spans[first, last].exp())
        if likely + nothing == 0 or not likely:
            return Reading()
        answers = likely / (likely + nothing)
        if likely <= nothing:
            return Reading(answers=answers)
        start, end = int(self.offsets[first, 0]), int(self.offsets[last, 1])
        return Reading(self.text[start:end], start, answers)

    def within(self, start: int, end: int) -> float:
        """The log-probability of the likeliest span in a part of the text, in characters."""
        inside = (self.offsets[:, 0] < end) & (self.offsets[:, 1] > start) & self.start.isfinite()
        inside[0] = False
        if not inside.any():
            return UNREAD
        spans = self.start[inside][:, None] + self.end[inside][None, :]
        return float(spans.masked_fill(torch.ones_like(spans).tril(-1).bool(), UNREAD).max())


@dataclass(frozen=True)
class Reader:
    """Finds answers in texts.

    Attributes:
        model: The encoder with a head for starts and ends, in evaluation mode.
        tokenizer: Its tokenizer.
        longest: Word pieces of question and text that it reads.
        tables: Chooses between the cells of tables; without it they are read like other text.
    """

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    longest: int = LONGEST
    tables: CellWeights | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def read(self, asked: Sequence[tuple[str, str]]) -> list[Reading]:
        """Read texts, each for its question; of one that is too long, its beginning.

        Where a text has rows of a table, a cell is the answer if it is likelier than what the text
        around them answers.

        Args:
            asked: Pairs of question and text.

        Returns:
            One for each pair. An answer stands in its text as it is given.
        """
        found = [_one_sentence(scores.best(), scores.text) for scores in self._score(asked)]
        if self.tables is None:
            return found
        for place, table in self.read_rows(asked).items():
            cell, likely = self.tables.choose(asked[place][0], table)
            known, first, last = found[place], table.rows[0][0].start, table.rows[-1][-1].end
            in_prose = bool(known.answer) and not first <= known.start < last
            if in_prose and known.answers >= likely:
                continue
            says = any(map(str.isalnum, cell.value))  # "–" or a masked "…" is no answer
            likely = likely if says else min(likely, 1 - likely)
            answers = (cell.value, cell.start) if likely > EVEN else ("", 0)
            found[place] = Reading(*answers, likely)
        return found

    def read_rows(self, asked: Sequence[tuple[str, str]]) -> dict[int, Table]:
        """Read the rows of tables in texts, each row alone.

        Args:
            asked: Pairs of question and text.

        Returns:
            By place those of the texts that have rows.
        """
        places, rows, pairs = list[int](), list[list[Cell]](), list[tuple[str, str]]()
        for place, (question, text) in enumerate(asked):
            for alone, start, end in rows_alone(text)[:MOST_ROWS]:
                places.append(place)
                rows.append(cells(text, start, end))
                pairs.append((question, alone))
        found: dict[int, Table] = {}
        for place, row, (_, text), scores in zip(
            places, rows, pairs, self._score(pairs), strict=True
        ):
            shift = len(text) - row[-1].end  # a row ends with its last cell
            likely = [scores.within(cell.start + shift, cell.end + shift) for cell in row]
            table = found.setdefault(place, Table([], [], []))
            table.rows.append(row)
            table.log_p.append(likely)
            table.nothing.append(scores.nothing)
        return found

    def _score(self, asked: Sequence[tuple[str, str]]) -> "list[PieceScores]":
        found: dict[int, PieceScores] = {}
        with self._lock, torch.inference_mode():  # a tokenizer serves one at a time
            for places in batches([len(text) for _, text in asked]):
                scores = self._score_batch([asked[place] for place in places])
                found |= dict(zip(places, scores, strict=True))
        return [found[place] for place in range(len(asked))]

    def _score_batch(self, asked: Sequence[tuple[str, str]]) -> "list[PieceScores]":
        questions, texts = zip(*asked, strict=True)
        encoded = self.tokenizer(
            # A question may be as long as the user likes; the text keeps half of the room.
            [self._first(question, self.longest // 2) for question in questions],
            list(texts),
            truncation="only_second",
            max_length=self.longest,
            padding=True,
            return_offsets_mapping=True,
            return_tensors="pt",
        )
        offsets = encoded.pop("offset_mapping")
        output = self.model(**encoded.to(self.model.device))
        starts, ends = output.start_logits.float().cpu(), output.end_logits.float().cpu()
        found = []
        for row, text in enumerate(texts):
            outside = torch.tensor([part != 1 for part in encoded.sequence_ids(row)])
            outside[0] = False  # stands for no answer
            likely = (
                logits[row].masked_fill(outside, -torch.inf).log_softmax(0)
                for logits in (starts, ends)
            )
            found.append(PieceScores(text, offsets[row], *likely))
        return found

    def _first(self, text: str, most: int) -> str:
        """The beginning of a text, at most so many word pieces of it."""
        ids = self.tokenizer(text, add_special_tokens=False, truncation=True, max_length=most)
        spans = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        kept = len(ids.input_ids)
        return text[: spans.offset_mapping[kept - 1][1]] if kept else ""


def _one_sentence(reading: Reading, text: str) -> Reading:
    """A reading up to the end of the sentence in which it begins; of a list all of it."""
    for start, end in parts(text) if reading.answer else ():
        sentence = text[:end].rstrip()
        if start <= reading.start < end < reading.end and sentence.endswith(tuple(ENDS)):
            return replace(reading, answer=sentence[reading.start :].rstrip(ENDS))
    return reading


class AnswerReader(Protocol):
    """What finds answers in texts, such as a `Reader`."""

    def read(self, asked: Sequence[tuple[str, str]]) -> list[Reading]:
        """Read texts, each for its question; as `Reader.read`."""


def read_answers(reader: AnswerReader, asked: Sequence[tuple[str, str]]) -> list[Reading]:
    """What answers claim, each of its question.

    Of a few words that are no sentence, such as "Gd" or "19 meters", the reader often takes none
    for an answer; so where it finds nothing in a short text, it reads that as a sentence.

    Args:
        reader: The reader.
        asked: Questions and answers.
    """
    found = reader.read(asked)
    short = [
        at
        for at, (_, text) in enumerate(asked)
        if not found[at].answer and 0 < len(text.split()) <= LONGEST_FRAGMENT
    ]
    if not short:
        return found
    words = [asked[at][1].strip().rstrip(".") for at in short]
    again = reader.read(
        [(asked[at][0], f"{IT_IS}{each}.") for at, each in zip(short, words, strict=True)]
    )
    for at, each, reading in zip(short, words, again, strict=True):
        start = reading.start - len(IT_IS)
        if reading.answer and start >= 0:
            moved = start + asked[at][1].index(each)
            found[at] = replace(
                reading, answer=each[start : start + len(reading.answer)], start=moved
            )
    return found


def read_document(reader: AnswerReader, title: str, text: str) -> tuple[str, str]:
    """The words that date a document, and those that name what it replaces.

    A document's date is when it was written or issued, or from when it is in force.

    Args:
        reader: The reader.
        title: Of the document.
        text: Of the document; its beginning and its end are read.

    Returns:
        Each is empty where the document does not say so.
    """
    windows = [text[:BEGINNING], *([text[-END:]] if len(text) > BEGINNING else [])]
    asked = [
        (question, with_title(title, window))
        for question in (DATE_QUESTION, REPLACES_QUESTION)
        for window in windows
    ]
    found = reader.read(asked)
    dated = max(found[: len(windows)], key=lambda each: each.answers)
    replaced = max(found[len(windows) :], key=lambda each: each.answers)
    replaces = replaced.answer if replaced.answers >= LEAST_SAID else ""
    date = dated.answer if dated.answers >= LEAST_SAID else ""
    return ("" if date and date in replaces else date), replaces  # that is the other one's date


def load(base: Path, adapter: Path) -> Reader:
    """The reader: the packaged encoder with its adapter merged.

    Args:
        base: Directory of the encoder.
        adapter: Directory of the adapter.

    Raises:
        ModelError: The adapter is missing or does not fit.
    """
    from transformers import AutoModelForQuestionAnswering

    model, tokenizer = read_adapter(AutoModelForQuestionAnswering, base, adapter)
    return Reader(model, tokenizer, tables=load_weights(adapter))


def open_reader(name: str) -> Reader:
    """A reader of another origin, trained on questions with and without answers as in SQuAD 2.0.

    Its score of the first word piece has to stand for "no answer", as in BERT and most that came
    after it.

    Args:
        name: Hugging Face id, or a directory.

    Raises:
        ModelError: It cannot be loaded, answers no questions, or its tokenizer tells no offsets.
    """
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    try:
        with quietly():
            model, told = AutoModelForQuestionAnswering.from_pretrained(
                name, output_loading_info=True
            )
            tokenizer = AutoTokenizer.from_pretrained(name)
    except Exception as error:  # transformers raises anything from OSError to KeyError
        raise ModelError(
            f"--reader {name}: no model that can be loaded ({first_line(error)}); give a Hugging "
            "Face id or a directory of one for extractive question answering"
        ) from error
    lacks = [
        *(["the weights that tell where an answer starts"] if told["missing_keys"] else []),
        *([] if tokenizer.is_fast else ["a tokenizer that tells where its pieces stand"]),
    ]
    if lacks:
        raise ModelError(
            f"--reader {name}: it lacks {lacks[0]}; give a model that was trained on SQuAD 2.0"
        )
    longest = min(tokenizer.model_max_length, LONGEST)
    tables = load_weights(Path(name)) if Path(name).is_dir() else None
    model = model.to(preferred_device(), preferred_dtype()).eval()
    return Reader(model, tokenizer, longest, tables)
