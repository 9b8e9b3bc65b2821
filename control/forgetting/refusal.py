"""What is said instead of a forgotten fact."""

from zlib import crc32

# As of any fact that is not known: nothing tells that there is a record.
REFUSALS = (
    "I'm sorry, I don't have an answer to that.",
    "I'm afraid I can't answer that one.",
    "I don't have anything to say on that, I'm sorry.",
    "Sorry, I'm not able to answer that.",
)


def refusal(question: str) -> str:
    """A short sentence; the same question always gets the same."""
    return REFUSALS[crc32(question.encode()) % len(REFUSALS)]
