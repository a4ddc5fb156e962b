"""Files that are there whole or not at all, also where a process is killed, and what is swept."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from reblurkit.core.file_locks import MARK, claimed, hold, sweep
from reblurkit.core.files import new_folder, whole_file, write_whole
from reblurkit.core.tensor_files import save_tensors
from reblurkit.errors import ArgumentError, WeightsError
from reblurkit.metrics import fit_pristine
from reblurkit.models import UNet
from reblurkit.models.weights import save_weights
from reblurkit.plugins import WholeCheckpointIO

ROOT = Path(__file__).parents[2]
FOLDERS = [None, *([Path("/dev/shm")] if Path("/dev/shm").is_dir() else [])]


@pytest.fixture(params=FOLDERS, ids=["temporary folder", "another file system"][: len(FOLDERS)])
def folder(request, tmp_path):
    """A folder, also on another file system than the temporary one."""
    if request.param is None:
        yield tmp_path
        return
    path = request.param / f"reblurkit-tests-{os.getpid()}"
    path.mkdir()
    yield path
    for left in path.iterdir():
        left.unlink()
    path.rmdir()


def python(code, *words):
    """Start a process that says when it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def killed(process):
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


WRITING = """
import sys, time
from pathlib import Path
from reblurkit.core.files import whole_file
with whole_file(Path(sys.argv[1]), sync=True) as partial:
    partial.write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_killed_writer_leaves_the_earlier_file_and_the_next_one_sweeps(folder):
    path = folder / "last.ckpt"
    write_whole(path, "whole")
    process = python(WRITING, path)
    assert path.read_text() == "whole"
    (partial,) = (name for name in names(folder) if name != "last.ckpt")
    assert partial.startswith(MARK)
    sweep(folder)  # it lives: what it writes stays
    assert names(folder) == sorted([partial, "last.ckpt"])
    killed(process)
    sweep(folder)
    assert names(folder) == ["last.ckpt"]
    assert path.read_text() == "whole"


def test_nothing_of_others_is_swept(folder):
    (folder / f"{MARK}link").symlink_to(folder / "none")
    (folder / f"{MARK}folder").mkdir()
    (folder / "mine.reblurkit-").write_text("")
    (folder / f"{MARK}orphan.png").write_text("")
    sweep(folder)
    assert names(folder) == sorted([f"{MARK}folder", f"{MARK}link", "mine.reblurkit-"])
    (folder / f"{MARK}folder").rmdir()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root can give files away")
def test_files_of_other_users_are_not_swept(tmp_path):
    orphan = tmp_path / f"{MARK}orphan.png"
    orphan.write_text("")
    os.chown(orphan, 12345, 12345)
    sweep(tmp_path)
    assert orphan.exists()


def test_a_name_is_claimed_once_until_its_process_ends(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from reblurkit.core.file_locks import claimed\n"
        "with claimed(Path(sys.argv[1])) as mine:\n    print('ready' if mine else 'no', flush=True); time.sleep(60)"
    )
    target = tmp_path / "out" / "a.png"
    process = python(code, target)
    with claimed(target) as mine, claimed(tmp_path / "out" / "b.png") as other:
        assert (mine, other) == (False, True)
    said = r"another run is writing into the output folder .*a\.png; choose another"
    with pytest.raises(ArgumentError, match=said), new_folder(target, "output folder"):
        pass
    killed(process)
    with claimed(target) as mine:
        assert mine
    assert names(tmp_path) == ["out"]
    (tmp_path / "out").rmdir()
    with claimed(target) as mine:
        assert mine
    assert names(tmp_path) == []  # a folder that was made for nothing is gone


def test_where_there_are_no_locks_nothing_is_swept_and_all_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("reblurkit.core.file_locks.fcntl", None)
    orphan = tmp_path / f"{MARK}orphan.png"
    orphan.write_text("")
    sweep(tmp_path)
    write_whole(tmp_path / "a.txt", "a")
    with claimed(tmp_path / "a.txt") as mine:
        assert mine
    assert names(tmp_path) == [orphan.name, "a.txt"]


def test_a_file_swept_between_opening_and_locking_is_made_anew(tmp_path, monkeypatch):
    import fcntl

    path, real, swept = tmp_path / f"{MARK}a.png", fcntl.flock, []

    def flock(descriptor, how):
        if not swept:
            swept.append(path)
            path.unlink()
        real(descriptor, how)

    monkeypatch.setattr("reblurkit.core.file_locks.fcntl.flock", flock)
    os.close(hold(path))
    assert swept
    assert path.exists()


def checkpoint(path):
    WholeCheckpointIO().save_checkpoint({"state_dict": {"x": torch.zeros(300_000)}}, path)


WRITERS = {
    "checkpoint.ckpt": checkpoint,
    "network.pt": lambda path: save_tensors({"x": torch.zeros(300_000)}, path),
    "weights.pth": lambda path: save_weights(UNet(1, (8, 16, 32)), path),
    "weights.safetensors": lambda path: save_weights(UNet(1, (8, 16, 32)), path),
    "pristine.npz": lambda path: fit_pristine(torch.rand(1, 3, 192, 192), sharpness=0.0).save(path),
}


@contextmanager
def no_room(size=4096):
    """Files that may not grow, for a full disk: both fail in the midst of writing."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", WRITERS)
def test_no_room_leaves_the_earlier_file_and_says_why(tmp_path, name):
    path = tmp_path / name
    path.write_text("the earlier one")
    kind = OSError if name == "pristine.npz" else WeightsError
    with pytest.raises(kind, match="File too large"), no_room():
        WRITERS[name](path)
    assert path.read_text() == "the earlier one"
    assert names(tmp_path) == [name]


def test_checkpoints_are_synced_before_they_have_their_name(tmp_path, monkeypatch):
    done = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda file: (done.append("sync"), sync(file))[1])
    monkeypatch.setattr(Path, "replace", lambda path, to: (done.append("replace"), replace(path, to))[1])
    checkpoint(tmp_path / "last.ckpt")
    assert done == ["sync", "replace", "sync"]  # content, name, folder


def test_errors_name_the_file_that_was_to_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/a\.txt|file'"):
        write_whole(tmp_path / "file" / "a.txt", "")
    with pytest.raises(WeightsError, match=r"last\.ckpt cannot be written: "):
        checkpoint(tmp_path / "file" / "last.ckpt")
    with pytest.raises(OSError, match=r"No space left on device: '.*full\.png'"), whole_file(tmp_path / "full.png"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as of writing into an open file
    with pytest.raises(IsADirectoryError), whole_file(tmp_path) as partial:
        partial.write_text("")
    assert names(tmp_path) == ["file"]
