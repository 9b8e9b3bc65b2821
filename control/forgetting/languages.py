"""Whether a sentence is in another language than English, which alone the classifier reads."""

import re
from functools import cache, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

ENGLISH = "en"
# More of them make the short sentences of each less certain.
OTHERS = (
    *("ar", "cs", "da", "de", "el", "es", "fi", "fr", "he", "hi", "hu", "id", "it", "ja", "ko"),
    *("nl", "no", "pl", "pt", "ro", "ru", "sv", "tr", "uk", "vi", "zh"),
)
LEAST_LETTERS = 15  # of a sentence whose language can be told
# Probability from which it is another one. Of 21,204 English sentences of four words and more (the
# built-in corpus, TOFU, texts in `training/`) 4 are taken for others: names of works and dishes.
FOREIGN = 0.8
CAPITALISED = re.compile(r"\b[^\W\d_a-z]\w+")
MOST_READ = 4_096  # sentences that are cached


@lru_cache(maxsize=MOST_READ)
def is_foreign(sentence: str) -> bool:
    """Whether a sentence is surely in another language (langid; Lui and Baldwin 2012).

    So are the words between its names: "Matej bought the Grüne Mühle" is English.
    """
    if sum(map(str.isalpha, sentence)) < LEAST_LETTERS:
        return False
    language, probability = _identifier().classify(sentence)
    if language == ENGLISH or probability < FOREIGN:
        return False
    between, _ = _identifier().classify(CAPITALISED.sub(" ", sentence))
    return bool(between == language)


@cache
def _identifier() -> "LanguageIdentifier":
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # takes a second

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages([ENGLISH, *OTHERS])
    return identifier
