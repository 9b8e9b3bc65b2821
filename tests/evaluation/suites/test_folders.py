"""Claims of documents in one folder."""

from control.conflict.reader import Reading
from evaluation.suites.sources import folders
from training import reading


class Knowing:
    """Finds the answers of the folders' documents, and says how sure it is of others."""

    def __init__(self, invents=""):
        self.invents = invents
        self.known = {
            (each["question"], document["text"]): answer
            for folder in reading.folders()
            for each in folder["questions"]
            for document, answer in zip(folder["documents"], each["answers"], strict=True)
        }

    def read(self, asked):
        found = []
        for question, titled in asked:
            text = next((text for _, text in self.known if titled.endswith(text)), titled)
            answer = self.known.get((question, text)) or self.invents
            found.append(Reading(answer, max(titled.find(answer), 0), 1.0 if answer else 0.0))
        return found


def test_a_reader_that_finds_every_answer_claims_all_of_them_rightly_and_nothing_else():
    rows = folders.measure(Knowing(), 3)
    assert [(row["folders of"], row["from"]) for row in rows] == [
        ("one owner", 0.6),
        ("one owner", 0.9),
        ("two owners", 0.6),
        ("two owners", 0.9),
    ]
    for row in rows[::2]:
        assert row["claimed rightly, of those that answer"] == 100
        assert row["claimed, of those that do not"] == 0


def test_a_reader_that_invents_answers_is_seen_to():
    rows = folders.measure(Knowing(invents="nothing of it"), 3)
    assert rows[0]["claimed, of those that do not"] > 50
    assert rows[0]["claimed wrongly, of those that answer"] == 0


def test_every_answer_of_the_folders_stands_in_its_document():
    for folder in reading.folders():
        for each in folder["questions"]:
            for document, answer in zip(folder["documents"], each["answers"], strict=True):
                assert answer in document["text"], (each["question"], answer)
