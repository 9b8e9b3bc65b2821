"""Whether a sentence states a forgotten fact: by its words first, then by its embedding."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from control.forgetting.gate import Vectors
from control.forgetting.matcher import LONG, find_answers
from control.forgetting.normalize import hides, plain
from control.forgetting.parts import parts
from control.forgetting.questions import question_forms
from control.forgetting.record import TOO_COMMON, Record
from control.forgetting.segments import NAMELIKE, WORD, content

# A sentence paraphrases a fact if it is similar to it, and more so with its answer than without.
# Chosen on 300 facts of the calibration relations: of the sentences of their passages that hold the
# answer 92 % pass both thresholds, of those that do not 1 %.
NEAR = 0.6  # least cosine between the sentence and the question with its answer
GAIN = 0.02  # by how much that cosine exceeds the one with the question alone
# A sentence that names anything else may state the same of another subject, or another answer for
# this one; then the gain has to be larger.
GAIN_OTHER = 0.05
STEM = 4  # first letters that a word shares with the answer it is made from, as in Peruvian
# Chosen on TOFU's forgotten answers, all of them, so none were held out: 95 % of their
# paraphrases are this similar, and 5 % of the paraphrased other answers about the same author.
NEAR_LONG = 0.82
KEY_WORD_SHARE = 0.5  # of a long answer's key words that a sentence contains
FEWEST_KEY_WORDS = 2
MOST_FORMS = 2  # question forms that a sentence is compared with; each is embedded
LONGEST = 2_000  # characters of a sentence that are compared
SMALL = TOO_COMMON | {
    *("also", "been", "can", "did", "do", "does", "had", "have", "her", "him", "how", "into"),
    *("known", "many", "may", "more", "most", "name", "named", "not", "only", "other", "she"),
    *("some", "such", "than", "their", "them", "then", "there", "these", "those", "through"),
    *("when", "where", "which", "while", "whose", "would", "yes", "no", "so", "but", "if"),
}
# Letters that related words have in common: "governor" and "government", "capital" and
# "capitale".
STEM_LENGTH = 4
ONSET = 2  # letters that names have in common with their adjectives: "France" and "French"
KEPT_SENTENCES = 4_096  # whose stems are cached, 4 MB


@dataclass(frozen=True)
class Statement:
    """A record's fact, prepared for comparison with sentences.

    Attributes:
        record: The record.
        spans: Answers short enough to be searched for literally.
        key_words: For each long answer its words that the question does not contain.
        sentences: Sentences that state the fact, to be embedded.
        questions: The same without the answer.
        long: Answers that are sentences themselves, as a whole and one by one.
        own: Normalised words of the subject and the short answers.
        asked_words: Normalised words of its names and question forms.
    """

    record: Record
    spans: tuple[str, ...]
    key_words: tuple[frozenset[str], ...]
    sentences: tuple[str, ...]
    questions: tuple[str, ...]
    long: tuple[str, ...]
    own: frozenset[str]
    asked_words: frozenset[str]

    def spelled(self, text: str) -> list[tuple[int, int]]:
        """Where the text gives a short answer."""
        return find_answers(text, self.record)

    def hidden(self, part: str) -> bool:
        """Whether a short answer is encoded in the sentence, for example reversed."""
        return hides(part, self.spans)

    def has_key_words(self, part: str) -> bool:
        """Whether the sentence has enough of the key words of a long answer."""
        words = set(plain(part).split())
        return any(
            len(key_words & words) >= max(FEWEST_KEY_WORDS, KEY_WORD_SHARE * len(key_words))
            for key_words in self.key_words
        )

    def forms(self) -> tuple[str, ...]:
        """All texts that a sentence is compared with."""
        return (*self.sentences, *self.questions, *self.long)

    def names_other(self, part: str) -> bool:
        """Whether the sentence names anything that neither the fact nor its question names."""
        named = {word for name in NAMELIKE.findall(part) for word in plain(name).split()}
        stems = {word[:STEM] for word in self.own}
        return any(word[:STEM] not in stems for word in named - self.asked_words - SMALL)

    def paraphrased_by(self, part: str, vector: Vectors, vectors: Mapping[str, Vectors]) -> bool:
        """Whether the sentence paraphrases the fact.

        Args:
            part: The sentence.
            vector: Its unit vector, shape (dimension,).
            vectors: Unit vectors of ``forms``, each of shape (dimension,).
        """
        if any(float(vectors[form] @ vector) >= NEAR_LONG for form in self.long):
            return True
        if not self.sentences:
            return False
        cosine = max(float(vectors[form] @ vector) for form in self.sentences)
        gain = cosine - max(float(vectors[form] @ vector) for form in self.questions)
        return cosine >= NEAR and gain >= (GAIN_OTHER if self.names_other(part) else GAIN)


def prepare_statement(record: Record) -> Statement:
    """The statement of a record's fact."""
    long = [span for span in record.spans if len(span.split()) >= LONG]
    short = tuple(span for span in record.spans if span not in long)
    asked = {word for text in (*record.questions, *record.names) for word in plain(text).split()}
    key_words = [frozenset(set(plain(span).split()) - asked - SMALL) for span in long]
    own = {word for name in (*record.names, *short) for word in plain(name).split()}
    return Statement(
        record=record,
        spans=short,
        key_words=tuple(words for words in key_words if words),
        sentences=_stating(record, short),
        questions=_asking(record) if _stating(record, short) else (),
        long=tuple(dict.fromkeys(form for span in long for form in _long_forms(span, record))),
        own=frozenset(own - SMALL),
        asked_words=frozenset(asked),
    )


def _long_forms(span: str, record: Record) -> list[str]:
    sentences = [span[start:end].strip() for start, end in parts(span)]
    long = [sentence for sentence in sentences if len(sentence.split()) >= LONG]
    return [span, *(compared(sentence, record) for sentence in long)]


def compared(sentence: str, record: Record) -> str:
    """The sentence as it is embedded: one that does not name the subject is prefixed with it."""
    sentence = sentence[:LONGEST]
    words = plain(sentence)
    known = any(plain(name) in words for name in record.names)
    return sentence if known else f"{record.subject}: {sentence}"


def _stating(record: Record, short: Sequence[str]) -> tuple[str, ...]:
    answer = " or ".join(answer for answer in record.answers if answer in short)
    return tuple(f"{question} {answer}." for question in _asking(record)) if answer else ()


def _asking(record: Record) -> tuple[str, ...]:
    questions = list(record.questions[:MOST_FORMS])
    if record.relation:
        questions.append(f"The {record.relation} of {record.subject} is")
    return tuple(questions)


@dataclass(frozen=True)
class KeywordPrefilter:
    """Words of which a sentence has at least one if it states a fact.

    Of 809 sentences of the built-in passages that name a subject and may state its fact, 12 % have
    one. Of the 13 that are similar enough to the fact to be removed, those without one did not
    state it.

    Attributes:
        stems: Beginnings of the words that ask for the fact or answer it, less the subject's own.
        onsets: First letters of the names in the answers.
    """

    stems: frozenset[str]
    onsets: frozenset[str]

    def __call__(self, sentence: str) -> bool:
        """Whether the sentence has one of them."""
        stems, onsets = _stems_and_onsets(sentence)
        return not (self.stems.isdisjoint(stems) and self.onsets.isdisjoint(onsets))


def keyword_prefilter(record: Record) -> KeywordPrefilter:
    """The words of which a sentence that states this record must have one."""
    own = {stem for name in record.names for stem in _stems(name)}
    usual = question_forms(record.subject, record.relation) if record.relation else ()
    texts = [*record.questions, *usual, record.relation, *record.spans]
    stems = {stem for text in texts for stem in _stems(text)} - own
    onsets = {onset for span in record.spans for onset in _onsets(span)}
    return KeywordPrefilter(frozenset(stems), frozenset(onsets))


@lru_cache(maxsize=KEPT_SENTENCES)
def _stems_and_onsets(sentence: str) -> tuple[frozenset[str], frozenset[str]]:
    return _stems(sentence), _onsets(sentence)


def _stems(text: str) -> frozenset[str]:
    return frozenset(stem[:STEM_LENGTH] for stem in content(plain(text)))


def _onsets(text: str) -> frozenset[str]:
    names = (word for word in WORD.findall(text) if word[0].isupper())
    return frozenset(plain(name)[:ONSET] for name in names)
