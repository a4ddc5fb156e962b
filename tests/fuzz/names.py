"""Folders whose files have hostile names, as recipes from which the process that reads them makes them.

Names may be options, addresses, words of a shell, of a terminal, of HTML or of this package's patterns, or no text; and
they may stand for pipes, devices, and links that lead to themselves.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from reblurkit.cli import main
from reblurkit.data.patterns import image_files
from reblurkit.data.video import find_videos
from reblurkit.data.video_reading import VideoFile
from reblurkit.errors import BackendError, ReblurkitError
from reblurkit.metrics.niqe_model import PristineModel
from reblurkit.models import UNet, load_weights
from reblurkit.plugins import load_networks
from tests.fuzz import hostile

# {port}: of a server that nobody may call
_NAMES = (
    "-", "--", "--help", "--debug", "--config=planted.yaml", "--network=planted.Network", "-c", "-o/tmp",
    "@planted.yaml", "http:/127.0.0.1:{port}/a", "https:/127.0.0.1:{port}/a", "tcp:/127.0.0.1:{port}/a",
    "tcp:127.0.0.1:{port}", "ftp:/a", "udp:127.0.0.1:{port}", "rtsp:/127.0.0.1:{port}/a", "http:", "concat:good|good",
    "subfile,,start,0,end,9,,:good", "data:,x", "pipe:0", "pipe:", "fd:0", "file:good", "file:/etc/passwd",
    "lavfi:testsrc", "cache:good", "crypto:good", "s3:/a", "gs:/a", "registry:a", "memory:/a", "zip:/a",
    "simplecache::http:/127.0.0.1:{port}/a", "a#sha256=00", "$(touch canary)", "`touch canary`", ";touch canary;",
    "|touch canary", "touch canary|", "&touch canary&", "$HOME", "~", "{{0.__class__}}", "{{x!r}}", "%s%n%d", "%(x)s",
    "\\1\\g<0>", "{{{{ 7 * 7 }}}}", "{{% include 'planted.py' %}}", "[red]", "[/]", "[link=http:]",
    "<script>alert(1)<", "&amp;\"'", "'\"><img src=x onerror=alert(1)>", "*", "**", "?", "[", "[a-", "<image>",
    "<image", "(?P<a>", "a{{b,c}}", "\\", "a\\..\\b", "...", "..a", ". ", " ", "\t", "\n",
    "a\nreblurkit: images deblurred: 9", "\r", "a\rb", "\x1b[2J", "\x1b]0;x\x07", "\x1b[8m", "\x9b31m", "\x08" * 9,
    "\u202e", "\u2028", "\u200b", "\ufeff", "\u0301" * 40, "e\u0301", "\u00e9", "\U0001f600", "\uffff", "\x7f",
    "\udcff", "\udce9t\udce9", "a\udc80\n", "CON", "NUL", "aux", "com1", "last", "best", "hpc", "null", "true",
    "1e999", "0", "9" * 250, "a" * 250, "\u00e9" * 120, "__pycache__", "__init__", "planted", "config", "metrics",
    ".hidden", "out", ".reblurkit-0123456789abcdef", "encoder_lv1", "frame_9" + "9" * 200, "a_compare", "a.png",
    "a.b.c", "a.tar.gz",
)  # fmt: skip
_SUFFIXES = {
    "deblur": (".png", ".jpg", ".PNG", ".mp4", ".tif", ".heic", ""),
    "pictures": (".png", ".jpg", ".webp"),
    "films": (".mp4", ".mkv", ".png", ".ts"),
    "weights": (".pth", ".safetensors", ".npz", ".pt", ".ckpt", ""),
    "pristine": (".npz", ".mat"),
    "run": (".yaml", ".ckpt", ""),
    "report": (".png", ".csv", "", "/metrics.csv", "/config.yaml", "/images", "/images/a.png", "/comparison.png"),
}
_KINDS = (
    "picture", "picture", "good", "postscript", "playlist", "nothing", "folder", "pipe", "device", "full", "loop",
    "round", "up", "gone", "secret", "socket",
)  # fmt: skip
_MAY_CHANGE = ("work/out", "work/.read", "work/canary", "canary")
_POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(canary) (w) file\n"
_PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:{port}/a.ts\n#EXT-X-ENDLIST\n"


def recipe(random_: random.Random) -> bytes:
    """Who reads, and one to four entries of a folder by name and kind."""
    reader = random_.choice(list(_SUFFIXES))
    entries = []
    for _ in range(random_.choice((1, 1, 2, 4))):
        name = random_.choice(_NAMES)
        if random_.random() < 0.3:
            name = random_.choice(("{}/{}", "{}{}", "{} {}", "{}-{}")).replace("{}", "%s") % (
                name,
                random_.choice(_NAMES),
            )
        entries.append((name + random_.choice(_SUFFIXES[reader]), random_.choice(_KINDS)))
    return json.dumps({"reader": reader, "entries": entries}).encode()


def read(path: Path) -> None:
    """Make the folder of a recipe, and let it be read.

    Raises:
        ReblurkitError: If anything in it is refused.
        AssertionError: If something is written where nothing may be, or reaches the terminal as it is.
    """
    made = json.loads(path.read_bytes())
    place = path.parent / "names"
    shutil.rmtree(place, ignore_errors=True)
    (place / "work" / "input").mkdir(parents=True)
    before = os.getcwd()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        try:
            os.chdir(place / "work")
            paths = _make(made["entries"], server.getsockname()[1])
            if made["reader"] == "report":
                _make_runs(paths)
            there = _there(place)
            with _programs(place):
                _READERS[made["reader"]](paths)
            changed = [name for name in _there(place) ^ there if not name.startswith(_MAY_CHANGE)]
            if changed:
                raise AssertionError(f"written outside the output: {changed}")
        finally:
            os.chdir(before)
            called = (place / "work" / "canary").exists() or (place / "canary").exists()
            with contextlib.suppress(BlockingIOError):
                server.accept()[0].close()
                called = True
            if called:
                (path.parent / "canary").touch()


def _make(entries: list[tuple[str, str]], port: int) -> list[Path]:
    """Files by hostile names, as far as the system has such names, beside a good picture."""
    hostile.plant(Path(), Path("canary").absolute())
    Image.fromarray(np.full((16, 16, 3), 99, np.uint8)).save("input/good.png")
    torch.save(UNet(**hostile.SMALL).state_dict(), "unet.pt")
    paths = []
    for name, kind in entries:
        path = Path("input", name.format(port=port))
        with contextlib.suppress(OSError, UnicodeError, ValueError):
            path.parent.mkdir(parents=True, exist_ok=True)
            if not os.path.lexists(path):
                _make_one(path, kind, port)
            paths.append(path)
    return paths


def _make_one(path: Path, kind: str, port: int) -> None:
    links = {"device": "/dev/zero", "full": "/dev/full", "loop": path.name, "gone": "nowhere", "secret": "/etc/passwd",
             "round": f"../input/{path.name}", "up": ".."}  # fmt: skip
    if kind in links:
        path.symlink_to(links[kind])
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    elif kind == "good":
        shutil.copy("unet.pt", path)
    elif kind == "picture":
        shutil.copy("input/good.png", path)
    else:
        path.write_bytes({"postscript": _POSTSCRIPT, "playlist": _PLAYLIST.format(port=port).encode()}.get(kind, b""))


def _there(place: Path) -> set[str]:
    """What is below a folder; links are not followed."""
    names = ((folder, name) for folder, *both in os.walk(place) for some in both for name in some)
    return {os.path.relpath(os.path.join(folder, name), place) for folder, name in names}


@contextlib.contextmanager
def _programs(place: Path):
    """Programs that libraries are known to start, which make the canary."""
    folder = place / ".programs"
    folder.mkdir()
    for name in ("gs", "ffmpeg", "ffprobe", "convert", "magick", "xdg-open", "gsutil", "aws", "git"):
        (folder / name).write_text(f"#!/bin/sh\ntouch {place}/canary\n")
        (folder / name).chmod(0o755)
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{folder}{os.pathsep}{before}"
    try:
        yield
    finally:
        os.environ["PATH"] = before
        shutil.rmtree(folder)


def command(*words: str) -> None:
    """A command, whose every line must be this package's and printable, and whose status must be true."""
    told = io.StringIO()
    with contextlib.redirect_stderr(told), contextlib.redirect_stdout(told):
        status = main(words)
    lines = told.getvalue().split("\n")
    if wrong := [line for line in lines if line and not (line.startswith("reblurkit: ") and line.isprintable())]:
        raise AssertionError(f"a terminal would get {wrong[0][:200]!r}")
    if status not in (0, 1, 2):
        raise AssertionError(f"status {status}")
    if (status == 0) == any("failed: " in line or "error: " in line for line in lines):
        raise AssertionError(f"status {status} after {lines}")
    if status:
        raise ReblurkitError(lines[0])


def _each(read_one: Callable[[Path], object], paths: list[Path]) -> None:
    """Read each; the last refusal in the end."""
    refused = None
    for path in paths:
        try:
            read_one(path)
        except ReblurkitError as error:
            refused = error
    if refused:
        raise refused


def _deblur(paths: list[Path]) -> None:
    by = ("--model", "unet", "--network-args", json.dumps(hostile.SMALL), "--weights", "unet.pt", "--device", "cpu")
    inputs = ["input"] if len(paths) % 2 else [f"./{path}" for path in paths]
    command("deblur", *inputs, "--output", "out", *by)


def _pictures(paths: list[Path]) -> None:
    from reblurkit.data import read_image

    _each(read_image, [*paths, *image_files(Path("input"))])


def _films(paths: list[Path]) -> None:
    def read_film(path: Path) -> None:
        with contextlib.suppress(BackendError):  # without PyAV
            VideoFile(path.stem, path)

    def read_all(folder: Path) -> None:
        for video in find_videos(folder):
            video.read(0, 1)

    _each(read_film, paths)
    _each(read_all, [Path("input")])


def _weights(paths: list[Path]) -> None:
    _each(lambda path: load_weights(UNet(**hostile.SMALL), str(path)), paths)


def _run(paths: list[Path]) -> None:
    """A checkpoint that says by a hostile name where its configuration is."""

    def load(path: Path) -> None:
        config = path.relative_to("input").as_posix()
        hostile_run = Path(".read")
        shutil.rmtree(hostile_run, ignore_errors=True)
        noted = {"config": config, "files": {config: {}}, "measured": {config: config}}
        model = {"class_path": "DeblurTask", "init_args": {"network": hostile.NETWORK, "weights": config}}
        checkpoint = hostile.run_folder(hostile_run, model, reblurkit=noted)
        with contextlib.suppress(OSError, UnicodeError):
            shutil.copytree("input", hostile_run, dirs_exist_ok=True, symlinks=True, ignore=_special)
        load_networks(checkpoint=str(checkpoint))
        load_networks(checkpoint=str(path))

    _each(load, paths)


def _special(folder: str, names: list[str]) -> list[str]:
    """Pipes and sockets, which cannot be copied."""
    places = [Path(folder, name) for name in names]
    return [each.name for each in places if not (each.is_symlink() or each.is_dir() or each.is_file())]


def _make_runs(paths: list[Path]) -> None:
    """Files of a run beside hostile ones, as far as these do not take their places."""
    for path in paths:
        run = path if path.is_dir() and not path.is_symlink() else path.parent
        texts = {"metrics.csv": "epoch,step,val/psnr,<b>\n0,1,3,3\n0,2,4,4\n", "config.yaml": f"model: {path.name!r}"}
        for name, text in texts.items():
            if not os.path.lexists(run / name):
                (run / name).write_bytes(os.fsencode(text))
        if not os.path.lexists(run / "images"):
            os.symlink(os.path.abspath("input"), run / "images")


def _report(paths: list[Path]) -> None:
    command("report", "input", "--output", "out.html")
    page = Path("out.html").read_text()
    if "<script>alert(1)" in page or "<img src=x" in page:
        raise AssertionError("names are HTML in the page")


_READERS: dict[str, Callable[[list[Path]], None]] = {
    "deblur": _deblur,
    "pictures": _pictures,
    "films": _films,
    "weights": _weights,
    "pristine": lambda paths: _each(PristineModel.load, paths),
    "run": _run,
    "report": _report,
}
