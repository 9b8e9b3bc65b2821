"""BM25 over titles and texts, by SQLite's FTS5 in the database of passages."""

import re
from collections.abc import Sequence

from sqlalchemy import Connection, text

TITLE_WEIGHT = 2.0  # a title says what the passage is about, and is short
# Passages that a query may score, together for all its words; the rarest words are used first.
POSTINGS = 10_000
MOST_WORDS = 64  # of a pasted text; the first ones
WORD = re.compile(r"[^\W_]+")
STOP_WORDS = {
    *("a", "about", "after", "all", "also", "an", "and", "any", "are", "as", "at", "be"),
    *("because", "been", "before", "being", "between", "both", "but", "by", "can", "could"),
    *("did", "do", "does", "doing", "during", "each", "for", "from", "had", "has", "have"),
    *("having", "he", "her", "here", "hers", "him", "his", "how", "i", "if", "in", "into"),
    *("is", "it", "its", "itself", "just", "me", "more", "most", "my", "no", "nor", "not"),
    *("of", "off", "on", "once", "only", "or", "other", "our", "out", "over", "own", "same"),
    *("she", "should", "so", "some", "such", "than", "that", "the", "their", "them", "then"),
    *("there", "these", "they", "this", "those", "through", "to", "too", "under", "until"),
    *("up", "very", "was", "we", "were", "what", "when", "where", "which", "while", "who"),
    *("whom", "whose", "why", "will", "with", "would", "you", "your"),
}

_COUNT = text("SELECT count(*) FROM (SELECT 1 FROM words WHERE words MATCH :word LIMIT :most)")
_FIND = text(
    "SELECT rowid, bm25(words, :title_weight, 1.0) AS score FROM words WHERE words MATCH :query "
    "ORDER BY score, rowid LIMIT :top_k"
)
_CONTAINING = text(
    "SELECT node_id FROM passages WHERE rowid IN "
    "(SELECT rowid FROM words WHERE words MATCH :query) ORDER BY rowid"
)


def find(connection: Connection, query: str, top_k: int) -> dict[int, float]:
    """Return the BM25 scores of the passages that hold words of the query, by number, best first.

    Stop words and, in a big index, common words are ignored. The query is never parsed as FTS5
    syntax.
    """
    # A quoted word is FTS5's way of saying "this text, whatever it is".
    words = [f'"{word}"' for word in _content_words(query)]
    counts = {
        word: connection.execute(_COUNT, {"word": word, "most": POSTINGS + 1}).scalar_one()
        for word in words
    }
    chosen: list[str] = []
    room = POSTINGS
    for word in sorted(words, key=counts.__getitem__):
        if counts[word] > room:
            break
        room -= counts[word]
        chosen.append(word)
    if not chosen:
        return {}
    values = {"query": " OR ".join(chosen), "title_weight": TITLE_WEIGHT, "top_k": top_k}
    # FTS5 gives the better match the lower number.
    return {row.rowid: -row.score for row in connection.execute(_FIND, values)}


def containing(connection: Connection, groups: Sequence[Sequence[str]]) -> list[str]:
    """Return the ids of all passages that hold, of each group, all words of one of its phrases."""
    wanted = []
    for group in groups:
        phrases = [WORD.findall(phrase.lower()) for phrase in group]
        ways = [" AND ".join(f'"{word}"' for word in words) for words in phrases if words]
        wanted.append(" OR ".join(f"({way})" for way in ways))
    if not wanted or not all(wanted):
        return []
    query = " AND ".join(f"({ways})" for ways in wanted)
    return list(connection.execute(_CONTAINING, {"query": query}).scalars())


def _content_words(query: str) -> list[str]:
    words = dict.fromkeys(word for word in WORD.findall(query.lower()) if word not in STOP_WORDS)
    return list(words)[:MOST_WORDS]
