"""What a question has to be; importing this loads no model."""

from foundation.errors import InputError
from foundation.text import SURROGATES

LONGEST_QUESTION = 20_000  # characters; far beyond any question, well below a pasted book
# Passages that every model reads. More hold the answer more often: of 48 questions about real
# documents the first 3 found held it for 71 %, the first 10 for 92 %.
FEWEST_READ = 3


def check_question(question: str, longest: int = LONGEST_QUESTION) -> str:
    """The question without surrounding space.

    Raises:
        InputError: It is empty, too long, or no text.
    """
    question = question.strip()
    if SURROGATES.search(question):
        raise InputError("the question holds bytes that are no text; give it in UTF-8")
    if not any(map(str.isalnum, question)):
        what = "holds no word" if question else "is empty"
        raise InputError(f"the question {what}; ask one, as in: What is the capital of Peru?")
    if len(question) > longest:
        raise InputError(
            f"the question has {len(question):,} characters, the limit is {longest:,}; "
            "give long text as a document beside it"
        )
    return question
