import json

from app import evaluation_setup
from app import settings as settings_module
from evaluation.datasets import real_documents

CACHE = "A cache holds 8 MB by default. It can be cleared at any time."
MAIL = "A letter needs a stamp. It is sent on Mondays."


def test_training_questions_are_asked_of_what_a_search_finds_in_an_index_of_their_own(
    tmp_path, monkeypatch
):
    corpus, questions = tmp_path / "corpus", tmp_path / "questions.jsonl"
    (corpus / "manual").mkdir(parents=True)
    for name, text in (("cache.txt", CACHE), ("mail.txt", MAIL)):
        (corpus / "manual" / name).write_text(text, encoding="utf-8")
    rows = [
        ("How large is the cache?", ["8 MB"], "manual/cache.txt", "A cache holds 8 MB by default."),
        ("How heavy may a letter be?", [], "manual/mail.txt", "A letter needs a stamp."),
    ]
    written = [
        {"split": "training", "kind": "passage", "question": question, "answers": answers}
        | {"evidence": [{"path": path, "span": span}]}
        for question, answers, path, span in rows
    ]
    questions.write_text("\n".join(map(json.dumps, written)), encoding="utf-8")
    monkeypatch.setattr(real_documents, "QUESTIONS", questions)
    monkeypatch.setattr(real_documents, "build", lambda _: None)
    monkeypatch.setattr(real_documents, "folders", lambda *_: [corpus / "manual"])

    settings = settings_module.load(home=tmp_path / "mine", cache=tmp_path / "cache")
    size, weight = evaluation_setup.searched_questions(settings, corpus, tmp_path / "run")
    assert (size.answers, size.evidence) == (("8 MB",), ("A cache holds 8 MB by default.",))
    assert {text for _, text in size.passages} == {CACHE, MAIL}  # what answers, and another
    assert (weight.answers, [text for _, text in weight.passages]) == ((), [MAIL])
    assert not (tmp_path / "mine").exists()
