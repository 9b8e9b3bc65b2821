"""Name matching whose time does not depend on the number of names."""

from collections import Counter
from collections.abc import Collection, Iterator
from itertools import chain
from typing import TypeVar

from rapidfuzz.distance import OSA

from control.forgetting.aliases import name_words
from control.forgetting.normalize import forms, scan
from control.forgetting.variants import TextVariant, views

Some = str | tuple[str, ...]
Key = TypeVar("Key", int, str)

LEAST_TYPO = 6  # letters of a name that also matches with one typo
LEAST_TYPO_WORD = 5  # letters of the word with the typo, in a name of several words
LONGEST_TYPO = 40  # letters of such a word; the index has an entry for each of them
NEARBY = 6  # words of a name on either side of the misspelled one
MOST_CORRECTED = 50_000  # words whose corrections are cached, about 2 MB
MOST_CORRECTIONS = 3  # of one misspelled word


class NameMatcher:
    """Phrases by key, found in any spelling that `normalize.find` matches, or with one typo.

    A typo is one inserted, deleted or substituted letter or two transposed ones, but not the first.
    The index holds every word of the names with one letter deleted, as SymSpell does. Adding or
    removing a name rebuilds nothing.
    """

    def __init__(self, correct: Collection[str] = ()) -> None:
        """Create an index without names.

        Args:
            correct: Normalised words that are no typos, nor are those of countries, languages,
                currencies and cities: Ireland is not Iceland.
        """
        self._correct = correct
        # A tuple only where there are several values, which saves a third of the memory.
        self._forms: dict[str, Some] = {}  # by key
        self._keys: dict[str, Some] = {}  # by form
        self._starts: dict[str, Counter[int]] = {}  # by first word, how many have so many words
        self._uses: Counter[str] = Counter()  # of words that may be misspelled
        self._corrected: dict[str, tuple[str, ...]] = {}  # by word of a text
        self._shortened: dict[int, Some] = {}  # by hash of the word without one letter

    def __len__(self) -> int:
        return len(self._forms)

    def __contains__(self, key: str) -> bool:
        return key in self._forms

    @property
    def phrases(self) -> list[str]:
        """All names, normalised."""
        return list(self._keys)

    def add(self, key: str, phrases: Collection[str]) -> None:
        """Add names under a key, in place of those it had."""
        self.remove(key)
        self._corrected.clear()
        for form in sorted(set().union(*map(forms, phrases))):
            _put(self._forms, key, form)
            if form not in self._keys:
                self._index_form(form)
            _put(self._keys, form, key)

    def remove(self, key: str) -> None:
        """Remove the names of a key; one that is not there is no error."""
        self._corrected.clear()
        for form in _each(self._forms.pop(key, ())):
            _drop(self._keys, form, key)
            if form not in self._keys:
                self._remove_form(form)

    def find(self, text: str, typos: bool = True) -> dict[str, list[tuple[int, int]]]:
        """Where names occur in a text: by key the spans, (start, end) in characters, in order.

        With ``typos`` names with one typo match too, of keys that have no other match.
        """
        if not self._forms:
            return {}
        variants = views(text)
        found: dict[str, set[tuple[int, int]]] = {}
        for start, end, keys in scan(variants, self._starts, self._keys):
            for key in _each(keys):
                found.setdefault(key, set()).add((start, end))
        if typos:
            for start, end, keys in chain.from_iterable(map(self._misspelled, variants)):
                for key in _each(keys):
                    if key not in found:
                        found[key] = {(start, end)}
        return {key: sorted(places) for key, places in found.items()}

    def _misspelled(self, view: TextVariant) -> Iterator[tuple[int, int, Some]]:
        for place, word in enumerate(view.words):
            for correction in self._corrections(word):
                first, last = max(0, place - NEARBY), place + NEARBY
                words = [*view.words[first:place], correction, *view.words[place + 1 : last]]
                corrected = TextVariant(words, view.spans()[first:last].copy)
                start, end = view.spans()[place]
                for found in scan([corrected], self._starts, self._keys):
                    surely = found[:2] != (start, end) or len(correction) >= LEAST_TYPO
                    if found[0] <= start < found[1] and surely:
                        yield found

    def _known(self, word: str) -> bool:
        used = word in self._uses or word.removesuffix("s") in self._uses
        return used or word in self._correct or word in name_words()

    def _corrections(self, word: str) -> tuple[str, ...]:
        if (known := self._corrected.get(word)) is not None:
            return known
        if len(self._corrected) >= MOST_CORRECTED:
            self._corrected.clear()
        near = dict[str, None]()
        if LEAST_TYPO_WORD - 1 <= len(word) <= LONGEST_TYPO and not self._known(word):
            near = {
                correction: None
                for part in (word, *_shorter(word))
                for correction in _each(self._shortened.get(hash(part), ()))
                if OSA.distance(word, correction, score_cutoff=1) <= 1
            }
        corrections = self._corrected[word] = tuple(near)[:MOST_CORRECTIONS]
        return corrections

    def _index_form(self, form: str) -> None:
        words = form.split(" ")
        self._starts.setdefault(words[0], Counter())[len(words)] += 1
        for word in _words_with_typos(form):
            self._uses[word] += 1
            if self._uses[word] == 1:
                for part in {word, *_shorter(word)}:
                    _put(self._shortened, hash(part), word)

    def _remove_form(self, form: str) -> None:
        words = form.split(" ")
        self._starts[words[0]] -= Counter([len(words)])
        if not self._starts[words[0]]:
            del self._starts[words[0]]
        for word in _words_with_typos(form):
            self._uses[word] -= 1
            if not self._uses[word]:
                del self._uses[word]
                for part in {word, *_shorter(word)}:
                    _drop(self._shortened, hash(part), word)


def _each(some: Some) -> tuple[str, ...]:
    return (some,) if isinstance(some, str) else some


def _put(table: dict[Key, Some], key: Key, text: str) -> None:
    table[key] = (*_each(table[key]), text) if key in table else text


def _drop(table: dict[Key, Some], key: Key, text: str) -> None:
    rest = tuple(other for other in _each(table[key]) if other != text)
    if rest:
        table[key] = rest[0] if len(rest) == 1 else rest
    else:
        del table[key]


def _words_with_typos(form: str) -> list[str]:
    words = form.split(" ")
    least = LEAST_TYPO if len(words) == 1 else LEAST_TYPO_WORD
    return [word for word in words if least <= len(word) <= LONGEST_TYPO and word.isalpha()]


def _shorter(word: str) -> list[str]:
    """The words with one letter other than the first deleted."""
    return [word[:place] + word[place + 1 :] for place in range(1, len(word))]
