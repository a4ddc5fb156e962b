"""Figures from run folders, and the measurement of the blur that remains."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
import torch
from PIL import Image
from scipy import stats
from skimage import data

from reblurkit.cli import main as reblurkit_main
from reblurkit.data import write_image
from reblurkit.models import ReblurNet, UNet, save_weights

SCRIPTS = Path(__file__).parents[2] / "examples" / "reproduce"


@pytest.fixture
def run_folder(user_folder):
    """A run of two steps, with M_R, and pairs."""
    photo = torch.from_numpy(data.astronaut()[:160, 100:260].copy()).permute(2, 0, 1) / 255
    for index in range(2):
        for kind in ("blur", "sharp"):
            image = photo.roll(index, 1) if kind == "sharp" else photo.roll(index + 1, 1)
            write_image(image, user_folder / "pairs" / kind / f"{index}.png")
    splits = [f"--data.{split}_split=null" for split in ("train", "val", "test")]
    words = ["--model", "DeblurTask", "--model.network", "UNet", "--model.network.widths=[4,4,4]"]
    words += ["--model.network.blocks=1", "--model.reblur_net", "ReblurNet", "--model.reblur_net.width=4"]
    words += ["--data", "PairedDataModule", "--data.root=pairs", "--data.crop=32", "--data.num_workers=0", *splits]
    words += ["--trainer.max_steps=2", "--trainer.accelerator=cpu", "--trainer.default_root_dir=run"]
    assert reblurkit_main(["fit", *words, "--trainer.enable_progress_bar=false"]) == 0
    return user_folder


def test_the_three_figures(run_folder):
    main = runpy.run_path(str(SCRIPTS / "figures.py"))["main"]
    common = ["--side", "144", "--width", "120"]
    main(["losses", "A=run", "run", "--data", "pairs", *common, "--output", "losses.png"])
    assert Image.open("losses.png").width == 4 * 128 + 8  # blurry, two runs, sharp
    main(["steps", "run", "--data", "pairs", "--steps", "0", "2", *common, "--output", "steps.png"])
    assert Image.open("steps.png").width == 4 * 128 + 8
    main(["real", "run", "--data", "pairs/blur", "--images", "1", *common, "--output", "real.png"])
    assert Image.open("real.png").width == 2 * 128 + 8
    with pytest.raises(SystemExit, match="holds no checkpoint"):
        main(["real", "pairs", "--data", "pairs/blur"])


def test_the_blur_that_remains_is_measured(tmp_path, monkeypatch):
    """Small networks in the pilot's place; differences are those of the photos, paired."""
    script = runpy.run_path(str(SCRIPTS / "remaining_blur.py"))
    for index, photo in enumerate((data.astronaut(), data.coffee())):
        write_image(torch.from_numpy(photo[:400, :400].copy()).permute(2, 0, 1) / 255, tmp_path / "p" / f"{index}.png")
    for name, network in {"l1": UNet(1, (4, 4, 4)), "reblur": UNet(1, (4, 4, 4)), "m_r": ReblurNet(2, 4)}.items():
        save_weights(network, tmp_path / f"{name}.safetensors")
    names = script["main"].__globals__
    monkeypatch.setitem(names, "UNet", lambda: UNet(1, (4, 4, 4)))
    monkeypatch.setitem(names, "ReblurNet", lambda blocks: ReblurNet(blocks, 4))
    monkeypatch.setitem(names, "BLURS", {"shake, 15 px": names["BLURS"]["shake, 15 px"]})
    monkeypatch.setitem(names, "SIZE", 9)
    monkeypatch.setitem(names, "DRAWN", ((0, 1),))
    files = [
        f"--{option}={tmp_path / file}.safetensors"
        for option, file in {"l1": "l1", "reblur": "reblur", "reblur-net": "m_r"}.items()
    ]
    script["main"](["--photos", str(tmp_path / "p"), *files, "--output", str(tmp_path / "out"), "--note", "Small."])
    results = json.loads((tmp_path / "out" / "remaining_blur.json").read_text())
    for key in ("spread", "peak", "psnr"):
        ours, theirs = (
            [photo[name][key]["shake, 15 px"] for photo in results["photos"]] for name in ("L1 + L_Reblur", "L1")
        )
        found = results["differences"]["L1 + L_Reblur - L1"][key]
        differences = [one - other for one, other in zip(ours, theirs, strict=True)]
        low, high = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
        assert (found["mean"], found["interval"]) == pytest.approx(((low + high) / 2, (high - low) / 2))
        assert found["below 0"] == sum(value < 0 for value in differences)
    text = (tmp_path / "out" / "remaining_blur.md").read_text()
    assert text.startswith("# The blur that remains\n\nSmall.\n")
    assert Image.open(tmp_path / "out" / "remaining_blur.jpg").width == 4 * 288 + 8
