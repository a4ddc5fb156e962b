"""One bad input never stops the others, and what is odd about it is told in one line that a terminal can show."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from reblurkit.cli import main
from reblurkit.cli.deblur import deblur_files
from reblurkit.core.terminal import printable
from reblurkit.data import PairedFolder, write_image
from reblurkit.errors import DatasetNotFoundError, ImageFileError, WeightsError
from reblurkit.inference import Deblurrer
from reblurkit.models import UNet, load_weights
from reblurkit.plugins import DeblurTask
from tests.fuzz.hostile import NETWORK, SMALL, run_folder

ROOT = Path(__file__).parents[2]
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_image(torch.rand(3, 16, 16), "photos/good.png")
    torch.manual_seed(0)
    torch.save(UNet(**SMALL).state_dict(), "unet.pt")
    return tmp_path


def deblur(*inputs, output="out"):
    arguments = '{"blocks": 1, "widths": [4, 4, 4]}'
    by = ["--model", "unet", "--network-args", arguments, "--weights", "unet.pt", "--device", "cpu"]
    return main(["deblur", *inputs, "--output", output, *by])


def lines(capsys):
    """What stderr has, each line of it ours and printable."""
    found = [line for line in capsys.readouterr().err.splitlines() if line]
    assert all(line.startswith("reblurkit: ") and line.isprintable() for line in found), found
    return found


@pytest.fixture
def ghostscript(work, monkeypatch):
    """A program that passes for Ghostscript; it makes the canary when it is started."""
    (work / "bin").mkdir()
    program = work / "bin" / "gs"
    program.write_text(f"#!/bin/sh\ntouch {work}/canary\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{work / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return work / "canary"


def test_postscript_that_is_called_a_picture_starts_no_program(work, ghostscript, capsys):
    subprocess.run(["gs"], check=False)
    assert ghostscript.exists()  # as it would
    ghostscript.unlink()
    for name in ("run/images/a.png", "photos/b.jpg", "clip/0.png", "pairs/train/blur/0.png", "pairs/train/sharp/0.png"):
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_bytes(POSTSCRIPT)
    (work / "run" / "metrics.csv").write_text("epoch,step,val/psnr\n0,1,3\n")
    assert main(["report", "run"]) == 1
    assert deblur("photos") == 1
    assert main(["adapt-video", "clip", "--output", "o", "--unsupervised", "--exposure", "0.5"]) == 2
    assert not ghostscript.exists()
    assert "a.png" in lines(capsys)[0]
    with pytest.raises(ImageFileError):
        PairedFolder("pairs", split="train")[0]
    assert not ghostscript.exists()


def test_one_place_opens_pictures():
    """With the formats that are meant: of all that Pillow knows some start programs."""
    found = [path for path in (ROOT / "reblurkit").rglob("*.py") if "Image.open(" in path.read_text()]
    assert [path.relative_to(ROOT).as_posix() for path in found] == ["reblurkit/data/headers.py"]
    text = found[0].read_text()
    assert text.count("Image.open(") == text.count("Image.open(source, formats=formats)") == 1


def test_names_of_videos_are_no_addresses_and_playlists_are_no_videos(work, monkeypatch, capsys):
    pytest.importorskip("av")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        port = server.getsockname()[1]
        playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:{port}/x.ts\n#EXT-X-ENDLIST\n"
        for name in (f"http:/127.0.0.1:{port}/a.mp4", f"tcp:/127.0.0.1:{port}/b.mp4", "photos/c.mp4", "concat:a|b.mp4"):
            path = work / "photos" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(playlist)
        (work / "photos" / "d.mp4").write_text("ffconcat version 1.0\nfile good.png\n")
        monkeypatch.chdir(work / "photos")
        os.link(work / "unet.pt", "unet.pt")
        assert deblur(".", output=str(work / "out")) == 1
        failed = [line for line in lines(capsys) if "failed: " in line]
        assert len(failed) == 5
        with pytest.raises(TimeoutError):
            server.accept()  # nobody has come


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_pipes_and_devices_are_left_out_with_a_line(work, capsys):
    os.mkfifo(work / "photos" / "pipe.png")
    (work / "photos" / "device.jpg").symlink_to("/dev/zero")
    (work / "photos" / "device.mp4").symlink_to("/dev/zero")
    assert deblur("photos") == 0
    left_out = next(line for line in lines(capsys) if "left out" in line)
    for name in ("device.jpg (a device)", "device.mp4 (a device)", "pipe.png (a pipe)"):
        assert f"photos/{name}" in left_out
    assert deblur("photos/pipe.png") == 2
    assert "photos/pipe.png: it is a pipe" in lines(capsys)[0]
    assert main(["adapt-video", "photos/pipe.png", "--output", "o", "--unsupervised", "--exposure", "0.5"]) == 2
    assert "it is a pipe" in lines(capsys)[-1]
    for path in ("photos/pipe.png", "/dev/zero", "photos"):
        with pytest.raises(WeightsError, match=r"it is a (pipe|device|folder), not a file|holds no file"):
            load_weights(UNet(**SMALL), path)


def test_links_that_lead_to_themselves(work, capsys):
    for name in ("a.png", "b.mp4"):
        (work / "photos" / name).symlink_to(name)
    (work / "photos" / "again").symlink_to(work / "photos", target_is_directory=True)
    assert deblur("photos") == 1
    assert len([line for line in lines(capsys) if "failed: " in line]) == 2
    assert (work / "out" / "good.png").is_file()
    assert deblur("photos/a.png") == 2
    lines(capsys)


def test_names_that_are_no_text_and_names_that_a_terminal_obeys(work, capsys):
    odd = [b"photos/\xe9\xff.png", b"photos/a\x1b[2J\x1b]0;x\x07.jpg", b"photos/\xe2\x80\xaeb.png", b"photos/\xe9.mp4"]
    for name in odd:
        Path(os.fsdecode(name)).write_bytes(b"broken")
    os.mkfifo(os.fsdecode(b"photos/\xe9\x1b.png"))
    assert deblur("photos") == 1
    told = lines(capsys)
    assert len([line for line in told if "failed: " in line]) == 4
    assert r"photos/\udce9\udcff.png" in "".join(told)
    assert r"photos/\udce9\x1b.png (a pipe)" in "".join(told)
    good = os.fsdecode(b"good\xe9")
    write_image(torch.rand(3, 16, 16), f"{good}/{good}.png")
    assert deblur(good, output="out2") == 0
    assert os.listdir("out2") == [f"{good}.png"]
    Path(good, "metrics.csv").write_text("epoch,step,val/psnr\n0,1,3\n")
    assert main(["report", good]) == 0
    lines(capsys)


def test_printable_leaves_texts_alone():
    for text in ("plain", "Grüße, 写真.png", "a b"):
        assert printable(text) == text
    assert printable("\x9b31m\r\udce9") == r"\x9b31m\r\udce9"


def test_a_test_of_images_whose_names_are_no_text(work):
    for kind in ("blur", "sharp"):
        write_image(torch.rand(3, 16, 16), os.fsdecode(b"pairs/test/%s/\xe9.png" % kind.encode()))
    data = {"class_path": "PairedDataModule", "init_args": {"root": "pairs", "batch_size": 1}}
    model = {"class_path": "DeblurTask", "init_args": {"network": NETWORK}}
    Path("c.yaml").write_text(yaml.safe_dump({"model": model, "data": data, "trainer": {"accelerator": "cpu"}}))
    assert main(["test", "--config", "c.yaml"]) == 0
    (table,) = work.rglob("per_image.csv")
    assert r"\udce9" in table.read_text()


def test_a_picture_that_memory_does_not_hold_fails_alone(work, monkeypatch):
    write_image(torch.rand(3, 16, 16), "photos/large.png")
    real = Image.Image.convert

    def convert(self, *arguments, **options):
        if "large" in getattr(self, "filename", ""):
            raise MemoryError
        return real(self, *arguments, **options)

    monkeypatch.setattr(Image.Image, "convert", convert)
    found = deblur_files(["photos"], "out", Deblurrer(UNet(**SMALL), device="cpu"))
    assert found.written == 1
    assert "there is not enough memory for it" in found.failed[0]


def png(width, height, data=b"", bits=8, *more):
    """A PNG file with a header of one's own."""

    def chunk(name, content):
        return len(content).to_bytes(4, "big") + name + content + zlib.crc32(name + content).to_bytes(4, "big")

    def size(width, height):
        return chunk(b"IHDR", width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes((bits, 2, 0, 0, 0)))

    others = b"".join(chunk(*each) if isinstance(each[0], bytes) else size(*each) for each in more)
    return b"\x89PNG\r\n\x1a\n" + size(width, height) + others + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_pictures_that_unpack_to_more_than_memory_are_refused(work, capsys):
    bomb = zlib.compress(bytes(50_000_000))
    (work / "photos" / "wide.png").write_bytes(png(500_000, 500_000, bomb))
    (work / "photos" / "deep.png").write_bytes(png(500_000, 500_000, bomb, 16))
    (work / "photos" / "small.png").write_bytes(png(24, 10_000_000, zlib.compress(bytes(1000))))
    (work / "photos" / "two.png").write_bytes(png(500_000, 500_000, bomb, 16, (16, 16)))
    (work / "photos" / "text.png").write_bytes(png(16, 16, bomb, 8, (b"zTXt", b"a\0\0" + bomb)))
    (work / "photos" / "profile.png").write_bytes(png(16, 16, bomb, 8, (b"iCCP", b"a\0\0" + bomb)))
    assert deblur("photos") == 1
    told = lines(capsys)
    for name in ("wide", "deep", "small", "two"):
        assert any(f"photos/{name}.png" in line for line in told)


def test_the_size_comes_from_the_header(work):
    from reblurkit.data.images import image_size

    write_image(torch.rand(3, 40, 50), "a.png")
    whole = Path("a.png").read_bytes()
    Path("a.png").write_bytes(whole[: len(whole) // 2])  # no pixel of it can be decoded
    assert image_size("a.png") == (40, 50)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_no_numbers_are_refused_everywhere(work, capsys, value):
    for kind in ("blur", "sharp"):
        write_image(torch.rand(3, 16, 16), f"pairs/test/{kind}/0.png")
    data = {"class_path": "PairedDataModule", "init_args": {"root": "pairs", "batch_size": 1}}
    model = {"class_path": "DeblurTask", "init_args": {"network": NETWORK, "weights": None}}
    trainer = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    state = DeblurTask(UNet(**SMALL)).state_dict()
    state["network.enter.bias"][1] = value
    path = str(run_folder(Path("run"), model))
    torch.save({"state_dict": state, "pytorch-lightning_version": "2.6.0"}, path)
    config = Path("run/config.yaml")
    config.write_text(yaml.safe_dump({"model": model, "data": data, "trainer": trainer}))
    for words in (
        ["test", "--config", config, "--ckpt_path", path],
        ["test", "--config", config, "--model.weights", path],
        ["deblur", "photos", "--output", "out", "--checkpoint", path],
        [*DEBLUR, '{"blocks": 1, "widths": [4, 4, 4]}', "--weights", path],
    ):
        assert main(list(map(str, words))) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
        assert path in line
        assert "enter.bias" in line


def test_a_checkpoint_that_cannot_be_gone_on_from_is_named(work, capsys):
    for split in ("train", "val"):
        for kind in ("blur", "sharp"):
            write_image(torch.rand(3, 32, 32), f"pairs/{split}/{kind}/0.png")
    data = {"class_path": "PairedDataModule", "init_args": {"root": "pairs", "batch_size": 1, "crop": 32}}
    model = {"class_path": "DeblurTask", "init_args": {"network": NETWORK, "reblur_net": None}}
    trainer = {"accelerator": "cpu", "logger": False, "max_steps": 1, "enable_progress_bar": False}
    Path("c.yaml").write_text(yaml.safe_dump({"model": model, "data": data, "trainer": trainer}))
    state = DeblurTask(UNet(**SMALL)).state_dict()
    for content in ({"optimizer_states": []}, {"optimizer_states": [], "loops": 3}, {"optimizer_states": 7}):
        torch.save({"state_dict": state, "pytorch-lightning_version": "2.6.0", **content}, "half.ckpt")
        assert main(["fit", "--config", "c.yaml", "--ckpt_path", "half.ckpt"]) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
        assert "half.ckpt" in line


DEBLUR = ["deblur", "photos", "--output", "o", "--model", "unet", "--network-args"]
ADAPT = ["adapt-video", "photos", "--output", "o", "--unsupervised", "--exposure", "0.5"]
FIT = ["fit", "--data", "DemoDataModule"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["demo", "--seed", str(10**30)], "must be a whole number from 0 to 4294967295"),
        ([*ADAPT, "--seed", "9" * 5000], "--seed: must be a whole number"),
        ([*FIT, "--model", "KernelWizardTask", "--seed_everything", str(10**30)], "--seed_everything must be from 0"),
        ([*FIT, "--model", "[" * 100_000], "--model: unknown class [[["),
        ([*DEBLUR, "[" * 100_000], "must be JSON"),
        ([*DEBLUR, f'{{"width": {"1" * 5000}}}'], "must be JSON"),
        ([*DEBLUR, '{"blocks": 1e30}'], "cannot be built"),
    ],
)
def test_numbers_and_texts_without_measure_are_told_in_one_line(work, capsys, words, said):
    assert main(words) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("reblurkit: error: ")
    assert said in line
    assert len(line) < 1000


def test_in_a_folder_that_has_been_deleted(tmp_path):
    (tmp_path / "gone").mkdir()
    program = f"import os; os.chdir({str(tmp_path / 'gone')!r}); os.rmdir(os.getcwd())\n"
    program += "from reblurkit.cli import main; raise SystemExit(main(['deblur', 'a.png', '--output', 'out']))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "reblurkit: error: the folder you are in has been deleted; go to another one\n"


def test_a_folder_without_files_is_told(work):
    with pytest.raises(DatasetNotFoundError, match="no file or folder"):
        deblur_files(["none"], "out", Deblurrer(UNet(**SMALL), device="cpu"))
