"""How much of a text does an answer repeat word for word?

Like the judge of leaks (`evaluation.judges.leak`), it shares no code with what keeps texts back.
"""

import re
from difflib import SequenceMatcher

WORD = re.compile(r"\w+")


def longest_copy(text: str, answer: str) -> int:
    """The most consecutive words that an answer has in common with a text, in any case."""
    own, said = (WORD.findall(each.casefold()) for each in (text, answer))
    # The second sequence is the one whose words are looked up, so it is the shorter one.
    return SequenceMatcher(None, own, said, autojunk=False).find_longest_match().size
