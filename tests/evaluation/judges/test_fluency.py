import math

import pytest

from evaluation.judges import fluency

THRICE = "The cat sat. The cat sat; the CAT!"  # six sequences of three words, three of them twice


@pytest.mark.parametrize(
    ("texts", "percent"),
    [
        ([THRICE], 50),
        ([THRICE, "One two three four."], 37.5),  # 3 of 8, all texts together
        (["One two three."] * 2, 0),  # again in another text is no repetition
        (["no no no no no"], 200 / 3),
        (["Two words.", ""], 0),
        ([], 0),
    ],
)
def test_repetition_is_the_share_of_sequences_that_stood_before(texts, percent):
    assert fluency.repetition(texts) == pytest.approx(percent)


def loss(tiny, text):
    """What transformers itself says, and over how many tokens it is the mean."""
    ids = tiny.tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
    return tiny.model(ids, labels=ids).loss.item(), ids.shape[1] - 1


def test_perplexity_is_that_of_the_mean_loss(tiny):
    text = "The capital of Peru is Lima."
    mean, _ = loss(tiny, text)
    assert fluency.perplexity(tiny, [text]) == pytest.approx(math.exp(mean), rel=1e-5)


def test_texts_of_any_length_count_by_their_tokens(tiny):
    texts = ["Lima.", "The capital of Peru is Lima, and not Nairobi.", "It is."]
    losses = [loss(tiny, text) for text in texts]
    mean = sum(each * tokens for each, tokens in losses) / sum(tokens for _, tokens in losses)
    assert fluency.perplexity(tiny, texts) == pytest.approx(math.exp(mean), rel=1e-5)


def test_more_texts_than_one_batch_count_alike(tiny):
    texts = [f"It is {number}." for number in range(fluency.BATCH + 3)]
    losses = [loss(tiny, text) for text in texts]
    mean = sum(each * tokens for each, tokens in losses) / sum(tokens for _, tokens in losses)
    assert fluency.perplexity(tiny, texts) == pytest.approx(math.exp(mean), rel=1e-5)


def test_empty_texts_do_not_count(tiny):
    assert fluency.perplexity(tiny, ["", "It is Lima.", ""]) == fluency.perplexity(
        tiny, ["It is Lima."]
    )
    assert fluency.repetition(["", THRICE]) == fluency.repetition([THRICE])
