from foundation.cache import BatchCache


def asked_of(recent, *keys):
    """The values, and which of the keys had to be found."""
    wanted = []

    def find(new):
        wanted.extend(new)
        return [len(key) for key in new]

    return recent.get(keys, find), wanted


def test_what_is_remembered_is_not_found_again_and_nothing_twice_at_once():
    recent = BatchCache(4)
    assert asked_of(recent, "one", "three", "one") == ([3, 5, 3], ["one", "three"])
    assert asked_of(recent, "three", "eleven") == ([5, 6], ["eleven"])
    assert asked_of(recent) == ([], [])


def test_the_least_recently_asked_for_are_forgotten_first():
    recent = BatchCache(2)
    asked_of(recent, "one", "three")
    asked_of(recent, "one")
    asked_of(recent, "eleven")
    assert asked_of(recent, "one", "three")[1] == ["three"]


def test_more_keys_than_are_remembered_have_their_values_all_the_same():
    assert asked_of(BatchCache(1), "one", "three", "eleven")[0] == [3, 5, 6]


def test_what_was_learnt_need_not_be_found():
    recent = BatchCache(2)
    recent.update({"three": 5})
    assert asked_of(recent, "three", "one") == ([5, 3], ["one"])
