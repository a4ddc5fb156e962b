"""The quick part of the suite: long runs in short, and that growth is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import scale

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="Linux says what a process holds")


def test_memory_and_open_files_stay_flat(capsys):
    assert scale.main(["--steps", "200", "--only", "long training"]) == 0
    assert scale.main(["--steps", "400", "--only", "many images"]) == 0
    assert capsys.readouterr().out.count("| yes |") == 2


def test_growth_is_found(tmp_path):
    with pytest.raises(AssertionError, match="memory grew from 10 to 100 MB"):
        scale.flat([(1.0, 3), (10.0, 3), (100.0, 3)], "3 steps")
    with pytest.raises(AssertionError, match="open files grew from 3 to 4"):
        scale.flat([(1.0, 3), (10.0, 3), (10.0, 4)], "3 steps")

    def broken(folder):
        raise AssertionError("no")

    assert scale.attempt(broken) == (False, "AssertionError: no")


def test_shares_of_two_processes_are_written_once(tmp_path):
    assert scale.deblurred_once(tmp_path, 2).startswith("48 images, bit-equal, shared as ")
