"""The bounded cache."""

from cellseg_d2.io.cache import BoundedCache


def test_what_was_used_last_is_kept():
    cache = BoundedCache(10, len)
    made = []

    def make(text):
        return lambda: made.append(text) or text

    for key in ("aaaa", "bbbb", "aaaa", "cccc", "aaaa", "bbbb"):
        assert cache.get(key[0], make(key)) == key
        assert cache.nbytes <= 10
    assert made == ["aaaa", "bbbb", "cccc", "bbbb"]


def test_what_is_too_large_is_not_kept():
    cache = BoundedCache(3, len)
    assert cache.get("key", lambda: "long") == "long"
    assert cache.nbytes == 0


def test_nothing_is_kept_without_room():
    cache = BoundedCache(0, len)
    made = []
    for _ in range(2):
        cache.get("key", lambda: made.append(1) or "x")
    assert len(made) == 2
