"""Many processes equal one, shared work is done exactly once, long runs stay flat: ``nox -s scale``.

Prints what each part found; the exit status is 1 if one is not as it should be.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import lightning.pytorch as L
import pytest
import torch
from torch.utils.data import DataLoader

import reblurkit.cli.deblur
from reblurkit.data import write_image
from reblurkit.inference import Deblurrer
from reblurkit.models import ReblurNet, UNet
from reblurkit.plugins import DeblurTask
from tests.conftest import PlainNet
from tests.ddp.test_ddp import train

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results" / "scale.md"
MEGABYTES = 32  # by which memory may differ between the second quarter and the last of a long run
_SMALL = ["--model.network=UNet", "--model.network.widths=[4, 4, 4]", "--model.network.blocks=0"]
_UNET = ["--model", "unet", "--network-args", '{"blocks": 0, "widths": [4, 4, 4]}', "--weights", "unet.pt"]
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def trained_alike(script: str, folder: Path, processes: int) -> str:
    """Weights after a training: of all processes the same, and those of one that has the joined batches."""
    ranks, (alone,) = train(script, folder, processes), train(script, folder, 1)
    for rank in ranks:
        assert all(torch.equal(rank[name], ranks[0][name]) for name in ranks[0])
        torch.testing.assert_close(rank, alone, rtol=0, atol=1e-12)
    largest = max((ranks[0][name] - alone[name]).abs().max().item() for name in alone)
    return f"{len(alone)} tensors, at most {largest:.1g} apart"


def adapted_alike(folder: Path, processes: int) -> str:
    """Images that each process adapts to, and their metrics."""
    ranks, (alone,) = train("adapt.py", folder, processes), train("adapt.py", folder, 1)
    images = {name: image for rank in ranks for name, image in rank["images"].items()}
    assert images.keys() == alone["images"].keys()
    assert all(torch.equal(image, alone["images"][name]) for name, image in images.items())
    assert all(rank["metrics"] == pytest.approx(alone["metrics"], abs=1e-6) for rank in ranks)
    return f"{len(images)} images, bit-equal"


def measured_alike(folder: Path, processes: int) -> str:
    """All metrics of all tasks, on images that do not divide."""
    ranks, (alone,) = train("measure.py", folder, processes), train("measure.py", folder, 1)
    assert all(rank == pytest.approx(alone, rel=1e-6, nan_ok=True) for rank in ranks)
    return f"{len(alone)} values"


def drawn_alike(folder: Path, processes: int) -> str:
    """Synthetic pairs: the same, however they are shared out."""
    for number in range(6):
        write_image(torch.rand(3, 24, 28), folder / "photos" / f"{number}.png")
    ranks, (alone,) = train("synthetic.py", folder, processes), train("synthetic.py", folder, 1)
    assert sorted(pair for rank in ranks for pair in rank["whole"]) == sorted(alone["whole"])
    return f"{len(alone['whole'])} pairs"


def predicted_once(folder: Path, processes: int) -> str:
    """``predict`` over ranks: each image written by one of them, as one process alone writes it."""
    for number in range(2 * processes + 1):
        for kind in ("blur", "sharp"):
            write_image(torch.rand(3, 20, 24), folder / "pairs" / "test" / kind / f"{number}.png")
    torch.save(UNet(0, (4, 4, 4)).state_dict(), folder / "unet.pt")
    words = ["predict", "--model=DeblurTask", *_SMALL, "--model.weights=unet.pt", "--data=PairedDataModule"]
    words += ["--data.root=pairs", "--data.num_workers=0", "--trainer.accelerator=cpu", "--trainer.logger=false"]
    for devices in (1, processes):
        strategy = ["--trainer.strategy=ddp"] if devices > 1 else []
        options = [f"--trainer.devices={devices}", f"--image_writer.folder=out{devices}", *strategy]
        command(folder, *words, *options)
    one, many = (contents(folder / f"out{devices}") for devices in (1, processes))
    assert one == many
    assert len(one) == 2 * processes + 1
    return f"{len(one)} images, bit-equal, none twice"


def deblurred_once(folder: Path, processes: int) -> str:
    """``deblur`` in several processes at once into one folder: each image deblurred by one of them."""
    count = 24 * processes
    for number in range(count):
        write_image(torch.rand(3, 32, 40), folder / "photos" / f"{number}.png")
    torch.save(UNet(0, (4, 4, 4)).state_dict(), folder / "unet.pt")
    words = ["deblur", "photos", *_UNET, "--device", "cpu"]
    together(folder, 1, *words, "--output", "alone")
    said = together(folder, processes, *words, "--output", "shared", "--existing", "skip")
    each = [int(re.search(r"images deblurred: (\d+)", text)[1]) for text in said]  # type: ignore[index]
    assert sum(each) == count
    assert contents(folder / "shared") == contents(folder / "alone")
    return f"{count} images, bit-equal, shared as {', '.join(map(str, each))}"


def together(folder: Path, processes: int, *words: str) -> list[str]:
    """Run a command several times at once, forked from here so that all begin in the same moment; what each said."""
    children = []
    for number in range(processes):
        log = folder / f"{number}.log"
        if (child := os.fork()) == 0:
            os.chdir(folder)
            torch.set_num_threads(1)  # threads of others are not forked
            sys.stderr = log.open("w")
            status = reblurkit.cli.main(list(words))
            sys.stderr.close()
            os._exit(status)
        children.append(child)
    ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    said = [(folder / f"{number}.log").read_text() for number in range(processes)]
    assert ends == [0] * processes, said
    return said


def trains_flat(folder: Path, steps: int) -> str:
    """A training with the reblurring loss: memory and open files do not grow."""
    rows = [{name: torch.rand(3, 16, 16) for name in ("blurry", "sharp")} for _ in range(8)]
    seen: list[tuple[float, int]] = []

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
            if trainer.global_step in (steps // 4, steps // 2, 3 * steps // 4, steps):
                seen.append(resources())

    trainer = L.Trainer(
        max_steps=steps, max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder, callbacks=[Watch()],
    )  # fmt: skip
    trainer.fit(DeblurTask(PlainNet(), ReblurNet(width=4)), DataLoader(rows, 2))
    return flat(seen, f"{steps} steps")


def deblurs_flat(folder: Path, steps: int) -> str:
    """The same of a network that adapts to image after image, and of files that are written."""
    deblurrer = Deblurrer(PlainNet(), reblur_net=ReblurNet(width=4), steps=1, device="cpu")
    seen = []
    for number in range(1, steps // 5 + 1):
        write_image(deblurrer(torch.rand(1, 3, 16, 16))[0], folder / "out.png")
        if number % max(steps // 20, 1) == 0:
            seen.append(resources())
    return flat(seen, f"{steps // 5} images")


def resources() -> tuple[float, int]:
    """Megabytes of memory and number of open files of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * _PAGE / 2**20, len(os.listdir("/proc/self/fd"))


def flat(seen: list[tuple[float, int]], what: str) -> str:
    """Compare the second quarter with the last: the first warms up."""
    (before, files), (after, files_after) = seen[1], seen[-1]
    assert after - before < MEGABYTES, f"memory grew from {before:.0f} to {after:.0f} MB in {what}"
    assert files_after <= files, f"open files grew from {files} to {files_after} in {what}"
    return f"{what}: {before:.0f} and {after:.0f} MB, {files} and {files_after} open files"


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def command(folder: Path, *words: str) -> None:
    """Run a command in a folder, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    start = [sys.executable, "-m", "reblurkit", *words]
    done = subprocess.run(start, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def parts(steps: int) -> dict[str, Callable[[Path], str]]:
    """All parts by name."""
    chosen: dict[str, Callable[[Path], str]] = {}
    if Path("/proc/self/fd").exists():
        chosen["a long training"] = partial(trains_flat, steps=steps)
        chosen["many images with adaptation"] = partial(deblurs_flat, steps=steps)
    for processes in (4, 2):
        for name, part in {
            "deblur": deblurred_once,
            "predict": predicted_once,
            "training with both mixins": partial(trained_alike, "train.py"),
            "fine-tuning on video": partial(trained_alike, "finetune.py"),
            "adaptation": adapted_alike,
            "tasks and metrics": measured_alike,
            "synthetic blur": drawn_alike,
        }.items():
            chosen[f"{name}, {processes} processes"] = partial(part, processes=processes)
    return chosen


def attempt(part: Callable[[Path], str]) -> tuple[bool, str]:
    """Whether a part is as it should be, and what it found."""
    with tempfile.TemporaryDirectory(prefix="reblurkit-scale-") as folder:
        try:
            return True, part(Path(folder))
        except Exception as error:
            return False, f"{type(error).__name__}: {' '.join(str(error).split())[-300:]}"


def main(words: list[str] | None = None) -> int:
    """Run the suite; 1 if a part is not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m tests.scale", description=__doc__)
    parser.add_argument("--steps", type=int, default=10_000, help="of the long runs (default: 10000)")
    parser.add_argument("--seconds", type=float, default=1200, help="when to begin nothing more (default: 1200)")
    parser.add_argument("--only", default="", help="parts whose name holds this")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    options = parser.parse_args(words)
    warnings.filterwarnings("ignore")
    start_time, lines, failed = time.monotonic(), ["| part | as it should be | found |", "|---|---|---|"], 0
    for name, part in parts(options.steps).items():
        if options.only not in name:
            continue
        if time.monotonic() - start_time > options.seconds:
            lines.append(f"| {name} | not run: no time left | |")
        else:
            good, found = attempt(part)
            failed += not good
            lines.append(f"| {name} | {'yes' if good else 'NO'} | {found} |")
        print(lines[-1], flush=True)
    text = "\n".join([*lines, "", f"{time.monotonic() - start_time:.0f} seconds.", ""])
    if options.write:
        RESULTS.write_text(f"{_HEAD}\n\n{text}")
    return int(failed > 0)


_HEAD = """\
# Many processes, long runs

`python -m tests.scale --write`: two and four processes (gloo) against one with the joined batch, work that several
processes share, and memory and open files of long runs (the second quarter against the last)."""

if __name__ == "__main__":
    sys.exit(main())
