"""The quick part of the suite: a kill in the midst of writing, and that findings are found."""

from __future__ import annotations

import os

import pytest

from reblurkit.core.file_locks import MARK
from tests.faults.__main__ import COUNTS, Suite, table
from tests.faults.child import Plan
from tests.faults.stories import orphans, torn

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")


@pytest.mark.parametrize("moment", ["in the midst", "after it has its name"])
@pytest.mark.parametrize("name", ["fit with the mixin", "deblur"])
def test_a_killed_run_goes_on_to_the_same_end(tmp_path, name, moment):
    suite = Suite(0)
    suite.kill(name, tmp_path, Plan(moment=moment, file=5))
    assert suite.findings == []
    (count,) = suite.counts.values()
    assert [count[each] for each in COUNTS] == [1, 0, 0, 0, 0, 0, 1, 1]
    assert "| all | 1 | 0 | 0 | 0 | 0 | 0 | 1 | 1 |" in table(suite, 1.0, 0, filled=False)


def test_what_is_wrong_is_found(tmp_path):
    for name in ("a.png", "last.ckpt", "metrics.json", f"{MARK}x.png"):
        (tmp_path / name).write_bytes(b"\x89PNG")
    found = [line.partition(": ")[0].rpartition("/")[2] for line in torn(tmp_path)]
    assert found == [
        "a.png",
        "last.ckpt",
        "metrics.json",
    ]
    assert orphans(tmp_path) == [str(tmp_path / f"{MARK}x.png")]
