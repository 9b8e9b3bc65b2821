import pytest
import torch
from torch.distributions import Categorical

from control.engines import branches, caches

TEXTS = ["What is it?", "Who?", "A longer question, is it not?", "abc."]
CONTINUATIONS = [["abc.", "d"], ["It is", "No, it is not."], ["x", "yz?"], ["def", "ghi"]]
APPENDED = ["It is the other one.", "No", "a", "jkl mno"]
LAYERS = (0, 2)


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def ids(model, text):
    return model.tokenizer(text, add_special_tokens=False).input_ids


def read(model, texts=TEXTS, groups=1, whole=True):
    given = model.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    return branches.read(model.model, given.input_ids, given.attention_mask, groups, whole)


def at_once(model, tokens):
    """What a plain forward pass makes of one whole text."""
    return model.model(torch.tensor([tokens]), output_hidden_states=True)


def afterwards(model, state):
    """The tokens with which each row goes on."""
    said = []
    for _ in range(8):
        said.append(state.logits.argmax(dim=-1))
        branches.step(model.model, [state], said[-1])
    return torch.stack(said, dim=1).tolist()


def generated(model, text):
    """The same by the library, reading the text alone."""
    tokens = ids(model, text)
    for _ in range(8):
        tokens = [*tokens, int(at_once(model, tokens).logits[0, -1].argmax())]
    return tokens[-8:]


def same(one, other):
    return torch.allclose(one, other, atol=1e-3)


def test_rows_of_different_lengths_go_on_as_each_does_alone(model):
    assert afterwards(model, read(model)) == [generated(model, text) for text in TEXTS]


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_rows_read_group_by_group_go_on_as_each_does_alone(tiny, groups, whole):
    state = read(tiny, groups=groups, whole=whole)
    assert afterwards(tiny, state) == [generated(tiny, text) for text in TEXTS]


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_prompts_read_in_several_passes_keep_their_order(tiny, monkeypatch, at_once):
    monkeypatch.setattr(branches, "TREES_AT_ONCE", at_once)
    texts = [*TEXTS, *(text[:-1] for text in TEXTS), *TEXTS[:2]]
    state = read(tiny, texts, groups=2)
    assert afterwards(tiny, state) == [generated(tiny, text) for text in texts]


@pytest.mark.parametrize("beside", [0, 1_000])
def test_prompts_that_differ_for_long_are_read_one_by_one(tiny, monkeypatch, beside):
    monkeypatch.setattr(branches, "MOST_BESIDE", beside)
    sizes, forward = [], tiny.model.forward

    def watched(**inputs):
        sizes.append(tuple(inputs["input_ids"].shape))
        return forward(**inputs)

    monkeypatch.setattr(tiny.model, "forward", watched)
    state = read(tiny, groups=2)
    assert len(sizes) == (len(TEXTS) if beside == 0 else 1)
    monkeypatch.undo()
    assert afterwards(tiny, state) == [generated(tiny, text) for text in TEXTS]


@pytest.mark.parametrize("order", [1, -1])
def test_a_text_that_begins_another_is_read_as_it_is_alone(model, order):
    texts = [ids(model, text) for text in ("It is", "It is the other one.", "It")][::order]
    state = read(model, TEXTS[:1])
    [together] = branches.read_on(model.model, state, [texts], LAYERS)
    for text, reading in zip(texts, together, strict=True):
        [[alone]] = branches.read_on(model.model, state, [[text]], LAYERS)
        assert len(reading.log_p) == len(text)
        assert same(reading.log_p, alone.log_p)
        assert same(reading.entropy, alone.entropy)
        assert same(reading.hidden, alone.hidden)


def test_rows_without_what_they_read_begin_anew(model):
    question, text = ids(model, TEXTS[0]), ids(model, "It is the other one.")
    state = read(model, [TEXTS[2], TEXTS[1]]).without([1])
    [[reading], _] = branches.read_on(model.model, state, [[question + text], [text]], LAYERS)
    [[expected]] = branches.read_on(model.model, read(model, TEXTS[:1]), [[text]], LAYERS)
    anew = reading.part(len(question))
    assert same(anew.log_p, expected.log_p)
    assert same(anew.hidden, expected.hidden)


def test_scoring_continuations_leaves_the_rows_unchanged(model):
    state = read(model)
    logits, mask = state.logits.clone(), state.mask.clone()
    shown = [[ids(model, text) for text in texts] for texts in CONTINUATIONS]
    branches.read_on(model.model, state, shown)
    branches.read_on(model.model, state, [texts[:1] for texts in shown])
    assert torch.equal(state.logits, logits)
    assert torch.equal(state.mask, mask)
    assert afterwards(model, state) == afterwards(model, read(model))


@pytest.mark.parametrize("at_most", [1, 3, 16])
def test_scores_equal_those_of_the_whole_text(model, at_most, monkeypatch):
    monkeypatch.setattr(branches, "TREES_AT_ONCE", at_most)
    shown = [[ids(model, text) for text in texts] for texts in CONTINUATIONS]
    readings = branches.read_on(model.model, read(model), shown, LAYERS)
    assert [len(each) for each in readings] == [2] * len(TEXTS)
    for text, continuations, row in zip(TEXTS, shown, readings, strict=True):
        start = len(ids(model, text))
        for tokens, reading in zip(continuations, row, strict=True):
            seen = at_once(model, ids(model, text) + tokens)
            before = Categorical(logits=seen.logits[0, start - 1 : -1])
            hidden = torch.stack([seen.hidden_states[layer][0, start:] for layer in LAYERS])
            assert same(reading.log_p, before.log_prob(torch.tensor(tokens)))
            assert same(reading.entropy, before.entropy())
            assert same(reading.hidden, hidden)


def test_only_requested_layers_are_kept(tiny):
    [[reading]] = branches.read_on(tiny.model, read(tiny, ["Who?"]), [[ids(tiny, "abc")]])
    assert reading.log_p.shape == (3,)
    assert not reading.hidden.numel()


def test_appending_and_then_stepping_equals_reading_everything_again(tiny):
    state = read(tiny)
    appended = [ids(tiny, text) for text in APPENDED]
    before = branches.extend(tiny.model, state, appended)
    last = state.logits
    next_tokens = torch.tensor([5, 6, 7, 8])
    branches.step(tiny.model, [state], next_tokens)
    for row, text in enumerate(TEXTS):
        start, count = len(ids(tiny, text)), len(appended[row])
        whole = [*ids(tiny, text), *appended[row], int(next_tokens[row])]
        expected = at_once(tiny, whole).logits[0]
        assert same(before[row, :count], expected[start - 1 : start + count - 1])
        assert same(last[row], expected[-2])
        assert same(state.logits[row], expected[-1])


@pytest.mark.parametrize("model", ["mistral", "qwen2"], indirect=True)
def test_a_sliding_window_counts_appended_tokens_as_any_others(model):
    state = read(model)
    branches.extend(model.model, state, [ids(model, "It is the other one.")] * len(TEXTS))
    expected = [generated(model, text + "It is the other one.") for text in TEXTS]
    assert afterwards(model, state) == expected


def test_copied_rows_go_on_apart_from_the_others(model):
    state = read(model)
    copied = state.copied([2, 0, 0])
    branches.extend(model.model, copied, [[7, 8]] * 3)
    several = state.copied()
    expected = [generated(model, text) for text in TEXTS]
    assert afterwards(model, state.copied([2, 0, 0])) == [expected[row] for row in (2, 0, 0)]
    assert afterwards(model, several) == expected
    assert afterwards(model, state) == expected


def test_repeated_rows_stand_side_by_side(model):
    state = read(model)
    state.repeat(2)
    expected = [generated(model, text) for text in TEXTS for _ in range(2)]
    assert afterwards(model, state) == expected


@pytest.mark.parametrize("model", ["mistral", "qwen2"], indirect=True)
def test_rows_that_were_appended_unequally_keep_their_sliding_window(model):
    texts, appended = ["What is it?", "Who?"], ["It is the other one.", "a"]
    given = model.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    own = [model.tokenizer(text, add_special_tokens=False).input_ids for text in appended]
    with torch.no_grad():
        state = branches.read(model.model, given.input_ids, given.attention_mask, whole=True)
        branches.extend(model.model, state, own)
        branches.step(model.model, [state], torch.tensor([5, 6]))
        for row, text in enumerate(texts):
            whole = model.tokenizer(text + appended[row], add_special_tokens=False).input_ids
            expected = model.model(torch.tensor([[*whole, 5 + row]])).logits[0, -1]
            assert torch.allclose(state.logits[row], expected, atol=1e-3)


def test_joined_rows_go_on_as_each_does_alone_and_copies_do_not_meet(tiny):
    parts = [read(tiny, TEXTS[:1]), read(tiny, TEXTS[1:])]
    expected = [generated(tiny, text) for text in TEXTS]
    state = branches.joined(parts)
    copies = [state.copied(), state.copied()]
    other = [branches.step(tiny.model, [copies[1]], torch.full((4,), 5)) for _ in range(3)]
    assert other == [None] * 3
    assert afterwards(tiny, copies[0]) == expected
    assert afterwards(tiny, state) == expected


def test_joined_rows_have_room_for_as_much_as_comes(tiny, monkeypatch):
    monkeypatch.setattr(caches, "ROOM", 3)
    state = branches.joined([read(tiny, TEXTS[:2]), read(tiny, TEXTS[2:])])
    branches.step(tiny.model, [state], state.logits.argmax(dim=-1))
    state.select(torch.tensor([1, 3]))
    state.trim()
    expected = [generated(tiny, TEXTS[row])[1:] for row in (1, 3)]
    assert [said[:7] for said in afterwards(tiny, state)] == expected
