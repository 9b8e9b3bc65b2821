from control.forgetting.router import Route
from evaluation.suites.router import build_trials, router_report


def test_a_router_that_knows_names_alone_is_told_by_its_false_alarms():
    def over(records):
        def route(question, history=()):
            named = [record for record in records if record.subject in question]
            return Route(named[0] if named else None, tuple(named), float(bool(named)))

        return route

    result = router_report(over, limit=10, split="calibration")
    [whole] = result["tables"]["router"]
    rows = result["tables"]["router by kind"]
    by_kind = {row["kind"]: row["recognised"] for row in rows}
    assert by_kind["direct"] == 100
    assert {row["refused at once"] for row in rows if row["kind"] == "direct"} == {100}
    assert by_kind["paraphrase"] == 100
    assert by_kind["follow-up"] < 100
    assert by_kind["same subject, other relation"] == 100
    assert by_kind["unrelated"] == 0
    assert 0 < whole["false alarms"] < 1
    assert 0.5 < whole["ROC AUC"] < 1


def test_no_question_beside_a_fact_asks_for_a_forgotten_one():
    records, trials = build_trials("calibration", 40)
    own = {question for record in records for question in record.questions}
    assert own <= {trial.question for trial in trials if trial.asks}
    assert not own & {trial.question for trial in trials if not trial.asks}


def test_what_is_left_to_the_answer_is_recognised_too():
    def over(records):
        def route(question, history=()):
            named = frozenset(one.id for one in records if one.subject in question)
            return Route(None, (), float(bool(named)), decide_on_output=named)

        return route

    result = router_report(over, limit=10, split="calibration")
    [direct, *_] = result["tables"]["router by kind"]
    assert (direct["recognised"], direct["refused at once"]) == (100, 0)
    assert result["tables"]["router"][0]["recall"] > 0.5
