"""The experiment on the reblurring loss, with small networks and a handful of steps."""

from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
from skimage.data import coffee, rocket

from reblurkit.data import write_image
from reblurkit.models import FoldedUNet, ReblurNet, UNet
from reblurkit.models.pretrained import Pretrained

SCRIPT = Path(__file__).parents[2] / "examples" / "reproduce" / "reblur_loss.py"


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """A function that calls the script with further words."""
    for name, photo in {"coffee": coffee(), "rocket": rocket()}.items():
        image = torch.from_numpy(photo.copy()).permute(2, 0, 1)[:, 100:196, 100:196] / 255
        for folder in ("train", "test"):
            write_image(image, tmp_path / folder / f"{name}.png")
    monkeypatch.syspath_prepend(SCRIPT.parent)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    torch.manual_seed(0)
    pair = FoldedUNet(widths=[8], blocks=[1]), ReblurNet(width=4)
    monkeypatch.setattr("reblurkit.models.load_pretrained", lambda: Pretrained(*pair, {}))
    script = runpy.run_path(str(SCRIPT))
    sizes = {"steps": 3, "batch_size": 2, "crop": 32, "average": 0.5}
    script["SIZES"]["small"].update(sizes)

    def call(*words):
        options = ["--photos", tmp_path / "train", "--test", tmp_path / "test", "--run", tmp_path / "run", "--small"]
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, options), *words])
        script["main"]()

    return call


def test_a_run_in_slices_and_its_record(experiment, tmp_path, capsys):
    experiment("--minutes", "0.0001")
    assert "L1, seed 0: 1 of 3 steps" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        experiment("--measure")
    assert "has not been trained to the end" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        experiment("--network", "other.pth")
    assert "holds a training with network None, and not" in capsys.readouterr().err
    experiment("--minutes", "5")
    assert "L1, seed 0: 3 of 3 steps\nfolded, learned, seed 0: 3 of 3 steps\n" in capsys.readouterr().out
    experiment("--measure")
    record = json.loads((tmp_path / "run" / "reblur_loss.json").read_text())
    assert record["steps"] == {"L1": 3, "folded, learned": 3}
    assert record["change from L1"]["folded, learned"]["psnr"]["photos"] == 2
    assert record["seconds a step"]["L1"] > 0
    assert record["origin"]["hardware"]
    assert "| folded, learned | " in (tmp_path / "run" / "reblur_loss.md").read_text()
    kept = tmp_path / "run" / "L1" / "measured.json"
    measured = json.loads(kept.read_text())
    measured["photos"]["coffee"]["psnr"] = 12.0
    kept.write_text(json.dumps(measured))
    experiment("--measure")  # nothing is measured again
    record = json.loads((tmp_path / "run" / "reblur_loss.json").read_text())
    assert record["photos"]["L1"]["0"]["coffee"]["psnr"] == 12.0


def test_the_papers_reblurring_networks_that_have_learned(experiment, tmp_path, capsys):
    files = [str(tmp_path / f"reblur_{blocks}.pth") for blocks in (2, 1)]
    for blocks, file in zip((2, 1), files, strict=True):
        torch.save(ReblurNet(blocks=blocks).state_dict(), file)
    words = ["--variants", "n = 1, learned", "n = 2, learned, real S", "L1, as long", "--as-long", "1.7"]
    for named in ([], ["--reblur", files[0]]):
        with pytest.raises(SystemExit):
            experiment(*words, *named)
        assert "'n = 1, learned' starts from weights of the paper's M_R, n = 1: name them" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        experiment(*words, "--reblur", "missing.pth")
    assert "--reblur takes files of weights, one or two, but came missing.pth" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        experiment("--variants", "folded, learned", "--as-long", "2")
    assert "--as-long is for 'L1, as long', which is not trained here" in capsys.readouterr().err
    experiment(*words, "--reblur", *files)
    told = capsys.readouterr().out
    assert "n = 1, learned, seed 0: 3 of 3 steps\nn = 2, learned, real S, seed 0: 3 of 3 steps\n" in told
    assert "L1, as long, seed 0: 5 of 5 steps" in told
    experiment("--reblur", files[0])  # the smaller one is not needed
    assert "n = 2, learned, seed 0: 3 of 3 steps" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        experiment("--reblur", files[1])
    assert "holds a training with reblur " in capsys.readouterr().err


def test_as_long_as_the_other_took(experiment, tmp_path, capsys):
    torch.save(ReblurNet(blocks=2).state_dict(), tmp_path / "reblur.pth")
    experiment("--variants", "L1, as long", "--reblur", str(tmp_path / "reblur.pth"))
    steps = re.search(r"L1, as long, seed 0: (\d+) of (\d+) steps", capsys.readouterr().out)
    assert int(steps[1]) == int(steps[2]) > 3  # a step with the paper's M_R takes longer than one of L1


def test_two_seeds_of_one_variant(experiment, tmp_path, capsys):
    words = ["--variants", "folded, learned", "--seeds", "2"]
    experiment("--minutes", "5", *words)
    told = capsys.readouterr().out
    assert "L1, seed 1: 3 of 3 steps\nfolded, learned, seed 1: 3 of 3 steps" in told
    assert "every" not in told
    for folder, psnr in {"L1": 10, "folded_learned": 11, "L1_seed_1": 20, "folded_learned_seed_1": 24}.items():
        rows = {"coffee": {"psnr": psnr, "gradient_ratio": 0.5}, "rocket": {"psnr": psnr + 1, "gradient_ratio": 0.5}}
        assert (tmp_path / "run" / folder / "last.ckpt").is_file()
        record = {"test": str((tmp_path / "test").resolve()), "niqe": None, "weights": None, "photos": rows}
        (tmp_path / "run" / folder / "measured.json").write_text(json.dumps(record))
    experiment("--measure")  # all that have been trained
    record = json.loads((tmp_path / "run" / "reblur_loss.json").read_text())
    assert record["change from L1"]["folded, learned"]["psnr"]["mean"] == pytest.approx((1 + 4) / 2)
    assert "| folded, learned | 2 | +2.500" in (tmp_path / "run" / "reblur_loss.md").read_text()
    with pytest.raises(SystemExit):
        experiment("--variants", "n = 2, learned")
    assert "'n = 2, learned' starts from weights of the paper's M_R, n = 2: name them" in capsys.readouterr().err


def test_networks_that_were_trained_elsewhere(experiment, tmp_path):
    files = [tmp_path / "l1.pth", tmp_path / "reblur.pth"]
    for seed, file in enumerate(files):
        torch.manual_seed(seed)
        torch.save(UNet().state_dict(), file)
    experiment("--trained", *map(str, files))
    record = json.loads((tmp_path / "run" / "reblur_loss.json").read_text())
    assert record["networks"] == ["l1", "reblur"]
    assert (tmp_path / "run" / "reblur_loss.png").is_file()
    assert record["change from L1"]["+ L_Reblur"]["psnr"]["mean"] != 0
    experiment("--trained", *map(str, files[::-1]))  # measured anew
    swapped = json.loads((tmp_path / "run" / "reblur_loss.json").read_text())
    assert swapped["photos"]["L1"] == record["photos"]["+ L_Reblur"]


@pytest.mark.parametrize("words", [("--seeds", "0"), ("--minutes", "nan"), ("--variants", "n = 9")])
def test_numbers_and_names_that_are_none(experiment, words, capsys):
    with pytest.raises(SystemExit):
        experiment(*words)
    assert f"argument {words[0]}: invalid" in capsys.readouterr().err


def test_the_plan(experiment, capsys):
    experiment("--plan")
    assert "Hypothesis: with L_Reblur" in capsys.readouterr().out
