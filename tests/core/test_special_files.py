"""Texts of strangers: whole, regular and of a size that can be read."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from reblurkit.cli import main
from reblurkit.core.special_files import read_text, special_kind


def test_a_text_is_read(tmp_path):
    (tmp_path / "a.txt").write_text("\u00e9")
    assert read_text(tmp_path / "a.txt") == "\u00e9"
    with pytest.raises(OSError, match="it has 2 bytes, and no such file has more than 1"):
        read_text(tmp_path / "a.txt", largest=1)
    with pytest.raises(OSError, match="it is a device"):
        read_text(type(tmp_path)("/dev/zero"))
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "b.txt")


@pytest.mark.skipif(not os.path.exists("/proc/self/pagemap"), reason="no such files here")
def test_files_of_the_system_that_call_themselves_regular_are_not(tmp_path, capsys):
    for name in ("pagemap", "environ"):
        for suffix in (".yaml", ".ckpt", ".png"):
            os.symlink(f"/proc/self/{name}", tmp_path / f"{name}{suffix}")
    with pytest.raises(OSError, match="it is a file of the system, not a file"):
        read_text(tmp_path / "environ.yaml")
    assert special_kind(tmp_path / "pagemap.ckpt") == "a file of the system"
    words = ["deblur", str(tmp_path), "--output", str(tmp_path / "out"), "--device", "cpu"]
    assert main(words) == 2
    assert "no image or video in" in capsys.readouterr().err
    assert main([*words, "--checkpoint", str(tmp_path / "pagemap.ckpt")]) == 2
    assert "it is a file of the system" in capsys.readouterr().err
    (tmp_path / "empty").touch()
    assert special_kind(tmp_path / "empty") is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("command", ["fit", "predict", "deblur"])
def test_a_configuration_that_is_a_pipe_is_not_waited_for(tmp_path, capsys, command):
    os.mkfifo(tmp_path / "c.yaml")
    rest = [str(tmp_path), "--output", str(tmp_path / "out")] if command == "deblur" else []
    assert main([command, *rest, "--config", str(tmp_path / "c.yaml")]) == 2
    assert "c.yaml cannot be read: it is a pipe, not a file" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("config", ["pipe", "device", "endless"])
def test_a_run_whose_configuration_does_not_end_is_told(tmp_path, capsys, config):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.csv").write_text("epoch,step,val/psnr\n0,1,3\n")
    path = tmp_path / "run" / "config.yaml"
    match config:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "endless":
            with path.open("wb") as file:
                file.truncate(2**40)
    words = ["report", str(tmp_path / "run"), "--output", str(tmp_path / "report.html")]
    program = "import sys; from reblurkit.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"reblurkit: error: cannot read {path}: ")


def test_a_log_without_end_is_told(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    with (tmp_path / "run" / "metrics.csv").open("wb") as file:
        file.truncate(2**40)
    assert main(["report", str(tmp_path / "run"), "--output", str(tmp_path / "report.html")]) == 2
    assert "bytes, and no such file has more than" in capsys.readouterr().err
