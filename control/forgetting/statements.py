"""Which sentences may state a forgotten fact, found by their words before any is read."""

from dataclasses import dataclass
from functools import lru_cache

from control.forgetting.matcher import LONG
from control.forgetting.normalize import hides, plain, words_of
from control.forgetting.questions import question_forms
from control.forgetting.record import TOO_COMMON, Record
from control.forgetting.segments import WORD, content

KEY_WORD_SHARE = 0.5  # of a long answer's key words that a sentence contains
FEWEST_KEY_WORDS = 2
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
MOST_STATEMENTS = 1_024  # that are cached


@dataclass(frozen=True)
class Statement:
    """A record's fact, prepared for comparison with sentences.

    Attributes:
        record: The record.
        spans: Answers short enough to be searched for literally.
        key_words: For each long answer its words that the question does not contain.
        stems: Beginnings of the words that ask for the fact or answer it, less the subject's own.
        onsets: First letters of the names in the answers.
    """

    record: Record
    spans: tuple[str, ...]
    key_words: tuple[frozenset[str], ...]
    stems: frozenset[str]
    onsets: frozenset[str]

    def hidden(self, part: str) -> bool:
        """Whether a short answer is encoded in the sentence, for example reversed."""
        return hides(part, self.spans)

    def has_key_words(self, part: str) -> bool:
        """Whether the sentence has enough of the key words of a long answer."""
        words = words_of([part])
        return any(
            len(key_words & words) >= max(FEWEST_KEY_WORDS, KEY_WORD_SHARE * len(key_words))
            for key_words in self.key_words
        )

    def possible(self, part: str) -> bool:
        """Whether the sentence has a word of those that ask for the fact or answer it.

        Of 809 sentences of the built-in passages that name a subject and may state its fact, 12 %
        have one.
        """
        return not (self.stems.isdisjoint(_stems(part)) and self.onsets.isdisjoint(_onsets(part)))


@lru_cache(maxsize=MOST_STATEMENTS)
def prepare_statement(record: Record) -> Statement:
    """The statement of a record's fact."""
    long = [span for span in record.spans if len(span.split()) >= LONG]
    short = tuple(span for span in record.spans if span not in long)
    known = words_of((*record.questions, *record.names)) | SMALL
    key_words = (frozenset(words_of([span]) - known) for span in long)
    usual = question_forms(record.subject, record.relation) if record.relation else ()
    texts = [*record.questions, *usual, record.relation, *record.spans]
    of_subject = {stem for name in record.names for stem in _stems(name)}
    return Statement(
        record=record,
        spans=short,
        key_words=tuple(words for words in key_words if words),
        stems=frozenset({stem for text in texts for stem in _stems(text)} - of_subject),
        onsets=frozenset(onset for span in record.spans for onset in _onsets(span)),
    )


@lru_cache(maxsize=KEPT_SENTENCES)
def _stems(text: str) -> frozenset[str]:
    return frozenset(word[:STEM_LENGTH] for word in content(plain(text)))


@lru_cache(maxsize=KEPT_SENTENCES)
def _onsets(text: str) -> frozenset[str]:
    names = (word for word in WORD.findall(text) if word[0].isupper())
    return frozenset(plain(name)[:ONSET] for name in names)
