"""What a sweep says of itself while it runs."""

import io
from collections import Counter

from lmc_tune.progress import listener_for
from lmc_tune.results import PairResult


def finished(key: str, status: str) -> PairResult:
    return PairResult(row={"key": key, "status": status})


def test_a_pair_that_is_tried_again_counts_once():
    stream = io.StringIO()
    with listener_for(stream) as listener:
        listener.start(3, Counter({"ok": 1}))
        for status in ("failed", "failed", "ok"):
            listener.finished([finished("a", status)])
        listener.finished([finished("b", "diverged")])
    assert stream.getvalue().splitlines() == ["3 pairs, 1 of them finished already", "3/3 pairs (1 diverged, 2 ok)"]


def test_one_pair_is_one_pair():
    stream = io.StringIO()
    with listener_for(stream) as listener:
        listener.start(1, Counter())
        listener.finished([finished("a", "ok")])
    assert stream.getvalue().splitlines() == ["1 pair", "1/1 pairs (1 ok)"]
