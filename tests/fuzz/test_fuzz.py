"""A few hundred damaged and hostile files; ``nox -s fuzz`` reads as many as there is time for."""

from __future__ import annotations

import random
import sys
from collections import Counter

from tests.fuzz.__main__ import FAILURES, Child, Result, fuzz, main, table
from tests.fuzz.mutations import mutated
from tests.fuzz.readers import formats

QUICK = [name for name in formats() if name != "mat"]  # each of which takes a second


def test_nothing_crashes_or_runs(tmp_path):
    result = fuzz(QUICK, count=500, seconds=200, seed=1, keep=tmp_path / "kept")
    assert result.failures == {}
    counts = {name: counter.total() for name, counter in result.counts.items()}
    assert all(counts.values()), counts
    assert sum(counter["refused"] for counter in result.counts.values()) > 200


def test_every_reader_reads_its_good_files(tmp_path):
    for each in formats().values():
        for content in each.samples(tmp_path):
            path = tmp_path / f"good{each.suffix}"
            path.write_bytes(content)
            each.read(path)


def test_mutations_are_the_same_again():
    contents = [bytes(range(256)) * 4, b"b" * 100]
    again = [[mutated(contents[0], "png", random.Random(seed), contents) for seed in range(50)] for _ in range(2)]
    assert again[0] == again[1]
    assert sum(each != contents[0] for each in again[0]) > 40


def test_a_reader_that_dies_is_counted_and_its_input_kept(tmp_path, monkeypatch, capsys):
    program = "print('{}', flush=True); input(); raise SystemExit(11)"
    monkeypatch.setattr(Child, "command", (sys.executable, "-c", program))
    assert main(["bmp", "--count", "2", "--keep", str(tmp_path / "kept")]) == 1
    assert "| bmp | 2 | 0 | 0 | 0 | 2 | 0 | 0 |" in capsys.readouterr().out
    assert (tmp_path / "kept" / "0-bmp.bmp").is_file()


def test_the_table_adds_up():
    result = Result({"png": Counter(refused=2, crash=1), "jpg": Counter(accepted=4)}, {"png": 0.5, "jpg": 0.1}, {})
    assert table(result)[-1] == "| all | 7 | 2 | 4 | 0 | 1 | 0 | 0 | 0.50 |"
    assert set(FAILURES) == {"untyped", "crash", "over time", "executed"}
