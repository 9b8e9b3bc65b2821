import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest
from llama_index.core.schema import QueryBundle

from foundation.errors import DocumentError, IndexStateError, InputError, ModelError
from retrieval.index import PassageIndex, open_index
from retrieval.stores.sqlite import LocalStore
from tests.retrieval.conftest import BagOfWords

Writer = Callable[..., Path]


def river(n: int) -> dict[str, object]:
    return {"id": f"r{n}", "text": f"River{n} is {n} km long.", "title": f"River{n}"}


def found(index: PassageIndex, query: str) -> list[str]:
    return [result.node.ref_doc_id or "" for result in index.retrieve(query)]


def node_ids(index: PassageIndex) -> list[str]:
    return [node.node_id for node in index._store.get_nodes()]


def test_ingest_and_retrieve(index: PassageIndex, json_lines: Writer) -> None:
    steps: list[int] = []
    report = index.ingest([json_lines(river(n) for n in range(300))], steps.append)
    assert (report.documents, report.passages, report.duplicates) == (300, 300, 0)
    assert sum(steps) == 300
    assert index.count() == 300
    best, *rest = index.retrieve("how long is river17?")
    assert best.node.ref_doc_id == "r17"
    assert best.node.metadata["title"] == "River17"
    assert len(rest) == 4
    scores = [result.score or 0.0 for result in [best, *rest]]
    assert scores == sorted(scores, reverse=True)
    assert all(-1 <= score <= 1 for score in scores)


def test_same_text_scores_one(index: PassageIndex, json_lines: Writer) -> None:
    index.ingest([json_lines([{"title": "a", "text": "b c"}])])
    assert index.retrieve("a b c")[0].score == pytest.approx(1.0)


def test_batch_of_queries_equals_single_queries(index: PassageIndex, json_lines: Writer) -> None:
    index.ingest([json_lines(river(n) for n in range(20))])
    queries = ["river3", "river9 km", "nothing of this"]
    batch = index.retrieve_batch(queries)
    for query, results in zip(queries, batch, strict=True):
        assert [r.node_id for r in results] == [r.node_id for r in index.retrieve(query)]
    assert [len(results) for results in index.retrieve_batch(queries, top_k=3)] == [3, 3, 3]
    assert index.retrieve_batch([]) == []


def test_batch_of_queries_with_their_embeddings(
    index: PassageIndex, json_lines: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.ingest([json_lines(river(n) for n in range(20))])
    queries = ["river3", "river9 km"]
    expected = index.retrieve_batch(queries)
    embeddings = [BagOfWords().get_query_embedding(query) for query in queries]
    monkeypatch.setattr(BagOfWords, "_get_query_embedding", None)  # there is no need of it
    assert index.retrieve_batch(queries, embeddings=embeddings) == expected


def test_query_by_its_embedding(index: PassageIndex, json_lines: Writer) -> None:
    index.ingest([json_lines(river(n) for n in range(20))])
    bundle = QueryBundle("ignored", embedding=BagOfWords().get_query_embedding("river4"))
    assert index.retrieve(bundle)[0].node.ref_doc_id == "r4"
    both = QueryBundle("ignored", custom_embedding_strs=["river5", "river6"])
    assert {result.node.ref_doc_id for result in index.retrieve(both)[:2]} == {"r5", "r6"}


def test_words_find_what_vectors_miss(json_lines: Writer, home: Path) -> None:
    lines = [river(n) for n in range(30)] + [{"id": "zoe", "text": "Zoë painted the Isar."}]
    both = open_index(home, None, BagOfWords())
    both.ingest([json_lines(lines)])
    nearness = open_index(home, None, BagOfWords(), lexical=False)
    # To the vectors "zoe" and "paintings" are words of no passage.
    assert "zoe" in found(both, "zoe paintings")[:2]
    assert "zoe" not in found(nearness, "zoe paintings")
    [results] = both.retrieve_batch(["zoe paintings"])
    assert [result.node.ref_doc_id for result in results] == found(both, "zoe paintings")
    assert all(-1 <= (result.score or 0.0) <= 1 for result in results)


def test_a_query_without_telling_words_is_answered_by_nearness(
    index: PassageIndex, json_lines: Writer
) -> None:
    index.ingest([json_lines([river(1), {"id": "b", "text": "to be or not to be"}])])
    assert found(index, "to be or not to be")[0] == "b"
    assert len(found(index, "?!")) == 2


def test_empty_index_and_odd_queries(index: PassageIndex, json_lines: Writer) -> None:
    assert index.retrieve("anything") == []
    index.ingest([json_lines([river(1)])])
    for query in ("", "?!", "\0"):
        assert [result.score for result in index.retrieve(query)] == [0.0]


def test_duplicates_are_stored_once(
    index: PassageIndex, json_lines: Writer, tmp_path: Path
) -> None:
    lines = [{"text": "The Rhine."}, {"text": "The Elbe."}, {"text": "The Rhine."}]
    report = index.ingest([json_lines(lines)])
    assert (report.documents, report.duplicates) == (2, 1)
    report = index.ingest([json_lines(lines, "copy.jsonl")])
    assert (report.documents, report.duplicates) == (0, 3)
    (tmp_path / "a.txt").write_text("The Rhine is long.")
    (tmp_path / "b.txt").write_text("The Rhine is long.\n")
    report = index.ingest([tmp_path / "a.txt", tmp_path / "b.txt"])
    assert (report.documents, report.duplicates) == (1, 1)
    assert index.count() == 3


def test_same_id_with_other_content_replaces(index: PassageIndex, json_lines: Writer) -> None:
    index.ingest([json_lines([river(1), river(2)])])
    report = index.ingest([json_lines([river(1), river(2) | {"text": "It dried up."}])])
    assert (report.documents, report.duplicates, report.replaced) == (1, 1, 1)
    assert index.count() == 2
    assert "dried" in index.retrieve("it dried up")[0].text
    assert not any("2 km" in result.text for result in index.retrieve("2 km"))


def test_last_of_the_same_id_in_one_file_counts(index: PassageIndex, json_lines: Writer) -> None:
    report = index.ingest([json_lines([river(1), river(1) | {"text": "It dried up."}])])
    assert (report.documents, index.count()) == (1, 1)
    assert "dried" in index.retrieve("river1")[0].text


def test_id_takes_over_content_of_another(index: PassageIndex, json_lines: Writer) -> None:
    a, b = {"id": "a", "text": "The Rhine."}, {"id": "b", "text": "The Elbe."}
    index.ingest([json_lines([a, b])])
    index.ingest([json_lines([a | {"text": "The Elbe."}])])
    assert [(r.node.ref_doc_id, r.text) for r in index.retrieve("the")] == [("b", "The Elbe.")]


def test_changed_title_replaces(index: PassageIndex, json_lines: Writer) -> None:
    index.ingest([json_lines([river(1)])])
    index.ingest([json_lines([river(1) | {"title": "Danube"}])])
    assert [r.node.metadata["title"] for r in index.retrieve("danube")] == ["Danube"]


def test_changed_trust_replaces(index: PassageIndex, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("The Rhine is long.")
    index.ingest([path], trust=0.9)
    again = index.ingest([path], trust=0.9)
    assert (again.documents, again.duplicates) == (0, 1)
    for trust in (0.1, None):
        report = index.ingest([path], trust=trust)
        assert (report.documents, report.replaced, index.count()) == (1, 1, 1)
        [result] = index.retrieve("the rhine")
        assert result.node.metadata.get("trust") == trust


def test_what_is_stored_is_not_read_for_its_date_again(tmp_path: Path, home: Path) -> None:
    asked = []

    def read_document(title: str, text: str) -> tuple[str, str]:
        asked.append(title)
        return ("2019", "") if "since" in text else ("", "")

    folder = tmp_path / "letters"
    folder.mkdir()
    for name in ("dated", "undated"):
        word = "since" if name == "dated" else "until"
        (folder / f"{name}.txt").write_text(f"It has been open {word} 2019.", encoding="utf-8")
    index = open_index(home, None, BagOfWords(), read_document=read_document)
    index.ingest([folder])
    assert asked == ["dated", "undated"]
    again = index.ingest([folder])
    assert (again.documents, again.replaced, again.duplicates) == (0, 0, 2)
    assert asked == ["dated", "undated"]
    assert {each.title: each.date for each in index.documents()} == {
        "dated": "2019",
        "undated": "",
    }
    (folder / "dated.txt").write_text("It has been shut since 2019.", encoding="utf-8")
    index.ingest([folder])
    assert asked == ["dated", "undated", "dated"]


def test_a_file_with_new_content_replaces_what_is_stored_of_it(
    index: PassageIndex, tmp_path: Path, json_lines: Writer
) -> None:
    folder = tmp_path / "letters"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.txt").write_text(f"The river {name} is long.")
    (folder / "copy.txt").write_text("The river a is long.")
    index.ingest([folder, json_lines([river(1)])])
    assert sorted(each.title for each in index.documents()) == ["River1", "a", "b"]
    (folder / "b.txt").write_text("The river b is short.")
    report = index.ingest([folder / "b.txt"])
    assert (report.documents, report.replaced) == (1, 1)
    assert [r.node.text for r in index.retrieve("the river b")][:1] == ["The river b is short."]
    # Another file still holds what the first one held.
    (folder / "a.txt").write_text("The river a is dry.")
    report = index.ingest([folder])
    assert (report.documents, report.replaced, report.duplicates) == (1, 0, 2)
    assert index.count() == 4
    # A file of JSON Lines may bring what is new.
    index.ingest([json_lines([river(2)])])
    assert {"River1", "River2"} <= {each.title for each in index.documents()}


def test_a_file_is_recognised_however_its_path_is_written(
    index: PassageIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    (folder / "b.txt").write_text("The Elbe is long.")
    spellings = ["docs/a.txt", "docs/../docs/a.txt", folder / "a.txt", "link/a.txt", "link", "."]
    for day, spelling in enumerate(spellings, start=1):
        (folder / "a.txt").write_text(f"The Rhine was dry for {day} days.")
        report = index.ingest([spelling])
        assert report.replaced == (day > 1)
        again = index.ingest([folder / "a.txt"])
        assert (again.documents, again.replaced, again.duplicates) == (0, 0, 1)
        [listed] = [each for each in index.documents() if each.title == "a"]
        assert listed.source.endswith("a.txt")
        texts = [node.get_content("none") for node in index.all_nodes()]
        assert [text for text in texts if "Rhine" in text] == [f"The Rhine was dry for {day} days."]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.txt").write_text("The Rhine is wet.")
    assert index.ingest(["other/a.txt"]).replaced == 0


def test_a_file_that_cannot_be_read_any_more_stays_in_the_index(
    index: PassageIndex, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("The Rhine is long.")
    (tmp_path / "b.txt").write_text("The Elbe is long.")
    index.ingest([tmp_path / "a.txt", tmp_path / "b.txt"])
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(DocumentError):
        index.ingest([tmp_path / "a.txt"])
    assert index.count() == 2


def test_ids_are_the_same_in_another_index(
    index: PassageIndex, json_lines: Writer, tmp_path: Path
) -> None:
    lines = [river(n) for n in range(50)]
    index.ingest([json_lines(lines)])
    other = open_index(tmp_path / "other", None, BagOfWords())
    other.ingest([json_lines(reversed(lines))])
    assert sorted(node_ids(other)) == sorted(node_ids(index))
    before = node_ids(index)
    index.delete("r7")
    index.ingest([json_lines(lines)])
    assert sorted(node_ids(index)) == sorted(before)


def test_delete_is_seen_at_once_and_after_reopening(
    index: PassageIndex, json_lines: Writer, home: Path
) -> None:
    index.ingest([json_lines(river(n) for n in range(50))])
    assert found(index, "river7")[0] == "r7"
    assert index.delete("r7") == 1
    assert index.delete("r7") == 0
    for opened in (index, open_index(home, None, BagOfWords())):
        results = found(opened, "river7")
        assert "r7" not in results
        assert len(results) == 5
        assert opened.count() == 49


def _ingest_and_delete(home: Path, path: Path) -> None:
    other = open_index(home, None, BagOfWords())
    other.ingest([path])
    other.delete("r1")


@pytest.mark.kill
def test_changes_of_another_process_are_seen(
    index: PassageIndex, json_lines: Writer, home: Path
) -> None:
    index.ingest([json_lines([river(1), river(2)])])
    assert set(found(index, "river1")) == {"r1", "r2"}
    path = json_lines([river(3)], "more.jsonl")
    process = multiprocessing.get_context("spawn").Process(
        target=_ingest_and_delete, args=(home, path)
    )
    process.start()
    process.join()
    assert process.exitcode == 0
    assert set(found(index, "river1")) == {"r2", "r3"}


def test_interruption_keeps_the_finished_batches(json_lines: Writer, home: Path) -> None:
    path = json_lines(river(n) for n in range(600))
    interrupted = open_index(home, None, BagOfWords(fail_after=300))
    with pytest.raises(KeyboardInterrupt):
        interrupted.ingest([path])
    resumed = open_index(home, None, BagOfWords())
    assert resumed.count() == 256
    assert found(resumed, "river17")[0] == "r17"
    report = resumed.ingest([path])
    assert (report.documents, report.duplicates) == (344, 256)
    assert found(resumed, "river599")[0] == "r599"


def test_interrupted_replacement_leaves_the_old_content(
    index: PassageIndex, json_lines: Writer, home: Path
) -> None:
    index.ingest([json_lines(river(n) for n in range(9))])
    before = index._store.get_nodes()
    broken = open_index(home, None, BagOfWords(fail_after=4))
    with pytest.raises(KeyboardInterrupt):
        broken.ingest([json_lines(river(n) | {"text": f"Dry bed {n}."} for n in range(9))])
    for opened in (index, broken, open_index(home, None, BagOfWords())):
        assert opened._store.get_nodes() == before
        assert opened.retrieve("river5 is 5 km long")[0].node.ref_doc_id == "r5"


def test_what_a_kill_left_unfinished_is_done_by_the_same_call(
    json_lines: Writer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(_: LocalStore) -> None:
        raise KeyboardInterrupt

    path = json_lines(river(n) for n in range(9))
    snapshot = home / "index" / "passages.faiss"
    with monkeypatch.context() as patched:
        patched.setattr(LocalStore, "finish", killed)
        with pytest.raises(KeyboardInterrupt):
            open_index(home, None, BagOfWords()).ingest([path])
    assert not snapshot.exists()
    report = open_index(home, None, BagOfWords()).ingest([path])
    assert (report.documents, report.duplicates) == (0, 9)
    written = snapshot.stat().st_mtime_ns
    open_index(home, None, BagOfWords()).ingest([path])
    assert snapshot.stat().st_mtime_ns == written  # and only once


def test_documents_before_a_bad_file_are_kept(index: PassageIndex, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("The Rhine.")
    (tmp_path / "b.pdf").write_text("no PDF")
    with pytest.raises(DocumentError, match=r"b\.pdf is not a readable PDF"):
        index.ingest([tmp_path / "a.txt", tmp_path / "b.pdf"])
    assert index.count() == 1


def test_skipped_files_are_reported(index: PassageIndex, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.txt").write_text("The Rhine.")
    (folder / "b.pdf").write_text("no PDF")
    report = index.ingest([folder])
    assert report.documents == 1
    assert [skip.path.name for skip in report.skipped] == ["b.pdf"]


def test_other_embedding_model_is_refused_with_both_names(
    index: PassageIndex, json_lines: Writer, home: Path
) -> None:
    open_index(home, None, BagOfWords(model_name="other"))  # empty: nothing to contradict
    index.ingest([json_lines([river(1)])])
    with pytest.raises(
        IndexStateError,
        match=r"bag-of-words .* with other; name bag-of-words by --embedding, or .* --home",
    ) as caught:
        open_index(home, None, BagOfWords(model_name="other"))
    assert "\n" not in str(caught.value)


def test_other_dimension_is_refused(index: PassageIndex, json_lines: Writer, home: Path) -> None:
    index.ingest([json_lines([river(1)])])
    changed = open_index(home, None, BagOfWords(dimension=64))
    with pytest.raises(IndexStateError, match=r"8192-dimensional .* now gives 64"):
        changed.ingest([json_lines([river(2)])])
    with pytest.raises(IndexStateError, match=r"8192-dimensional .* now gives 64"):
        changed.retrieve("river1")
    assert index.count() == 1


def test_embedding_that_gives_nan_is_refused(
    index: PassageIndex, json_lines: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BagOfWords, "_vector", lambda *_: [float("nan")] * 8192)
    with pytest.raises(ModelError, match="not finite"):
        index.ingest([json_lines([river(1)])])
    assert index.count() == 0


@pytest.mark.parametrize("url", ["redis://x", "mysql://x/y", "", "FAISS://"])
def test_unsupported_url(home: Path, url: str) -> None:
    with pytest.raises(InputError, match="is not supported; give 'faiss'"):
        open_index(home, url, BagOfWords())


def test_wrong_numbers(home: Path) -> None:
    with pytest.raises(InputError, match="top_k is 0"):
        open_index(home, "faiss", BagOfWords(), top_k=0)
    with pytest.raises(InputError, match="no index 'Nonsense'"):
        open_index(home, "faiss", BagOfWords(), index_factory="Nonsense")


def test_home_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    with pytest.raises(IndexStateError, match="cannot be created"):
        open_index(tmp_path / "home", None, BagOfWords())
