"""A few hundred damaged and hostile files; ``nox -s fuzz`` reads as many as there is time for."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from reblurkit.core.downloads import RemoteFile
from reblurkit.errors import ReblurkitError
from tests.fuzz import names, servers
from tests.fuzz.__main__ import FAILURES, RECIPES, Child, Result, fuzz, main, table
from tests.fuzz.mutations import mutated
from tests.fuzz.readers import formats

QUICK = [name for name in formats() if name != "mat"]  # each of which takes a second

SERVER = {"address": "http://127.0.0.1:{port}/model.pth", "status": "HTTP/1.1 200 OK", "headers": [], "cut": 1,
          "body": "content", "end": "close", "checksum": "right", "at_once": 1, "by": "fetch"}  # fmt: skip
GREETING = "import json; print(json.dumps({'number': 0}), flush=True)"


def test_nothing_crashes_or_runs(tmp_path):
    result = fuzz(QUICK, mutations=300, hostile=260, seconds=400, seed=1, keep=tmp_path / "kept")
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
    program = f"{GREETING}; input(); raise SystemExit(11)"
    monkeypatch.setattr(Child, "command", (sys.executable, "-c", program))
    assert main(["bmp", "--hostile", "2", "--mutations", "2", "--keep", str(tmp_path / "kept")]) == 1
    assert "| bmp | 4 | 0 | 0 | 0 | 4 | 0 | 0 |" in capsys.readouterr().out
    assert (tmp_path / "kept" / "0-bmp.bmp").is_file()


def test_a_reader_that_is_killed_is_a_crash_with_its_status_and_the_next_one_reads_on(tmp_path, monkeypatch):
    answer = "print(json.dumps({'number': json.loads(input())[0], 'outcome': 'accepted', 'what': ''}), flush=True)"
    program = f"{GREETING}\nwhile True: {answer}"
    monkeypatch.setattr(Child, "command", (sys.executable, "-c", program))
    child = Child(tmp_path)
    try:
        assert child.read("png", tmp_path)["outcome"] == "accepted"
        child.process.kill()  # between two readings, as the system does that has no memory left
        assert child.read("png", tmp_path) == {"outcome": "crash", "what": "status -9: "}
        assert child.read("png", tmp_path)["outcome"] == "accepted"
    finally:
        child.close()


def test_a_greeting_that_comes_late_is_no_answer(tmp_path, monkeypatch):
    twice = f"{GREETING}; print(json.dumps({{'number': 0}}), flush=True); input()"
    monkeypatch.setattr(Child, "command", (sys.executable, "-c", twice))
    child = Child(tmp_path)
    try:
        assert child.read("png", tmp_path)["outcome"] == "crash"
    finally:
        child.close()


def test_a_reader_that_does_not_start_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(Child, "command", (sys.executable, "-c", "raise SystemExit(3)"))
    with pytest.raises(RuntimeError, match="has not started: status 3"):
        Child(tmp_path).read("png", tmp_path)


def test_recipes_are_the_same_again():
    for recipe in RECIPES.values():
        assert recipe(random.Random(3)) == recipe(random.Random(3)) != recipe(random.Random(4))


@pytest.mark.parametrize("name", RECIPES)
def test_what_recipes_must_not_do_is_seen(name, tmp_path, monkeypatch):
    """The canary sings, and files in wrong places and messages of many lines are told."""
    recipe = {"names": {"reader": "weights", "entries": [["$(touch canary).pth", "good"]]}, "downloads": SERVER}
    path = tmp_path / "input.json"
    path.write_text(json.dumps(recipe[name]))
    known = formats()[name]
    known.read(path)
    assert not (tmp_path / "canary").exists()

    if name == "names":
        careless = {"weights": lambda paths: subprocess.run(f"echo {paths[0]}", shell=True, check=True)}
        monkeypatch.setattr(names, "_READERS", careless)
        known.read(path)
        assert (tmp_path / "canary").exists()
        monkeypatch.setattr(names, "_READERS", {"weights": lambda paths: Path("elsewhere").touch()})
        with pytest.raises(AssertionError, match="outside the output"):
            known.read(path)
    else:
        monkeypatch.setattr(RemoteFile, "_check", lambda *_: None)
        path.write_text(json.dumps({**SERVER, "cut": 0.9}))
        with pytest.raises(AssertionError, match="accepted, but the cache holds"):
            known.read(path)


@pytest.mark.parametrize("by", ["fetch", "command"])
def test_what_a_server_says_is_looked_at_as_it_is_told(by, tmp_path, monkeypatch):
    """Careless code is seen: messages of several lines, and what a terminal obeys."""
    path = tmp_path / "input.json"
    known = formats()["downloads"]
    path.write_text(json.dumps({**SERVER, "by": by}))
    known.read(path)
    path.write_text(json.dumps({**SERVER, "by": by, "status": "HTTP/1.1 404 a\x85\x1b[2Jb"}))
    with pytest.raises(ReblurkitError, match="404"):
        known.read(path)
    if by == "fetch":
        monkeypatch.setattr("reblurkit.core.downloads._reason", str)
        seen = "several lines: .*404"
    else:
        monkeypatch.setattr("reblurkit.cli.failures.printable", str)
        seen = "a terminal would get .*404"
    with pytest.raises(AssertionError, match=seen):
        known.read(path)


@pytest.mark.parametrize("by", ["fetch", "command"])
def test_a_shell_that_gets_an_address_is_seen(by, tmp_path, monkeypatch):
    real = RemoteFile.path

    def careless(self):
        subprocess.run(f"echo {self.url}", shell=True, check=False, stdout=subprocess.DEVNULL)
        return real(self)

    path = tmp_path / "input.json"
    (shell,) = [each for each in servers._ADDRESSES if "$(" in each]
    path.write_text(json.dumps({**SERVER, "by": by, "address": shell}))
    for _ in range(2):
        with contextlib.suppress(ReblurkitError):
            formats()["downloads"].read(path)
        assert (tmp_path / "canary").exists() == (RemoteFile.path is careless)
        monkeypatch.setattr(RemoteFile, "path", careless)


def test_the_table_adds_up():
    result = Result({"png": Counter(refused=2, crash=1), "jpg": Counter(accepted=4)}, {"png": 0.5, "jpg": 0.1}, {})
    assert table(result)[-1] == "| all | 7 | 2 | 4 | 0 | 1 | 0 | 0 | 0.50 |"
    assert set(FAILURES) == {"untyped", "crash", "over time", "executed"}
