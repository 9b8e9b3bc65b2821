"""Whether a sentence can state a fact in other words, told by its words before it is embedded."""

from dataclasses import dataclass
from functools import lru_cache

from control.forgetting.normalize import plain
from control.forgetting.questions import question_forms
from control.forgetting.record import Record
from control.forgetting.segments import WORD, content

# Letters that a stem has in common with its kin: "governor" and "government", "capital" and
# "capitale".
STEM = 4
ONSET = 2  # letters that names have in common with their adjectives: "France" and "French"
# Where they have not.
ADJECTIVES = {
    "american": "united states",
    "british": "united kingdom",
    "briton": "united kingdom",
    "burmese": "myanmar",
    "dane": "denmark",
    "danish": "denmark",
    "dutch": "netherlands holland",
    "filipino": "philippines",
    "persian": "iran",
    "welsh": "wales",
}
KEPT = 4_096  # sentences whose words are remembered, 4 MB


@dataclass(frozen=True)
class KeywordPrefilter:
    """Words of which a sentence has one if it states a fact.

    Of 809 sentences of the built-in passages that name a subject and may state its fact, 12 % have
    one. Of the 13 that lie near enough to the fact to be taken for it, those without one did not
    state it.

    Attributes:
        stems: Beginnings of the words that ask for the fact or answer it, less the subject's own.
        onsets: First letters of the names in the answers.
    """

    stems: frozenset[str]
    onsets: frozenset[str]

    def __call__(self, sentence: str) -> bool:
        """Whether the sentence has one of them."""
        stems, onsets = _words(sentence)
        return not (self.stems.isdisjoint(stems) and self.onsets.isdisjoint(onsets))


def clues(record: Record) -> KeywordPrefilter:
    """What a sentence that states this record must have something of."""
    own = {stem for name in record.names for stem in _stems(name)}
    usual = question_forms(record.subject, record.relation) if record.relation else ()
    said = [*record.questions, *usual, record.relation, *record.spans]
    stems = {stem for text in said for stem in _stems(text)} - own
    onsets = {onset for span in record.spans for onset in _onsets(span)}
    return KeywordPrefilter(frozenset(stems), frozenset(onsets))


@lru_cache(maxsize=KEPT)
def _words(sentence: str) -> tuple[frozenset[str], frozenset[str]]:
    return _stems(sentence), _onsets(sentence)


def _stems(text: str) -> frozenset[str]:
    words = plain(text)
    more = [ADJECTIVES[word] for word in words.split() if word in ADJECTIVES]
    return frozenset(stem[:STEM] for stem in content(" ".join([words, *more])))


def _onsets(text: str) -> frozenset[str]:
    names = (word for word in WORD.findall(text) if word[0].isupper())
    return frozenset(plain(name)[:ONSET] for name in names)
