"""The experiments that start from the network in the box, with small networks and a handful of steps."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch
from skimage.data import coffee, rocket

from reblurkit.data import write_image
from reblurkit.metrics import fit_pristine
from reblurkit.models import FoldedUNet, ReblurNet
from reblurkit.models.pretrained import Pretrained

SCRIPTS = Path(__file__).parents[2] / "examples" / "reproduce"


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder of two sharp photos; scripts can be imported, and the box holds small networks."""
    for name, photo in {"coffee": coffee(), "rocket": rocket()}.items():
        image = torch.from_numpy(photo.copy()).permute(2, 0, 1)[:, 100:260, 100:340] / 255
        write_image(image, tmp_path / "photos" / f"{name}.png")
    monkeypatch.syspath_prepend(SCRIPTS)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    torch.manual_seed(0)
    pair = FoldedUNet(widths=[8], blocks=[1]), ReblurNet(width=4)
    monkeypatch.setattr("reblurkit.models.load_pretrained", lambda: Pretrained(*pair, {}))
    return tmp_path / "photos"


def script(name, monkeypatch):
    """A script as a module, which finds the small networks in the box."""
    module = importlib.import_module(name)
    monkeypatch.setattr(module, "load_pretrained", importlib.import_module("reblurkit.models").load_pretrained)
    return module


@pytest.mark.parametrize(
    "name", ["sharpening_camera", "trained_adaptation", "pan_finetune", "own_blur", "long_blur", "consistency"]
)
def test_the_plan_is_told_without_photos(name, photos, monkeypatch, capsys):
    script(name, monkeypatch).main(["--plan"])
    assert capsys.readouterr().out.startswith("Hypothesis: ")


def test_a_camera_that_sharpens(photos, tmp_path, monkeypatch, capsys):
    module = script("sharpening_camera", monkeypatch)
    words = ["--photos", str(photos), "--test", str(photos), "--output", str(tmp_path / "run")]
    words += ["--steps", "1", "--seeds", "2", "--width", "4"]
    module.main(words)
    assert "seed 1: " in capsys.readouterr().out
    record = json.loads((tmp_path / "run" / "sharpening_camera.json").read_text())
    assert len(record["photos"]) == 2  # runs
    by_hand = [
        sum(run[number]["translated, deblurred"]["psnr"] - run[number]["blurry"]["psnr"] for run in record["photos"])
        / 2
        for number in range(2)
    ]
    found = record["differences"]["translated, deblurred - blurry"]
    assert found["mean"] == pytest.approx(sum(by_hand) / 2)
    assert found["least"] == pytest.approx(min(by_hand))
    module.main(words)  # nothing is trained again
    assert "seed 1: " not in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "sharpening_camera.json").read_text())["photos"] == record["photos"]


def test_sharpening_is_unsharp_masking(photos, monkeypatch):
    module = script("sharpening_camera", monkeypatch)
    step = torch.full((1, 3, 48, 48), 0.45)
    step[..., 24:] = 0.55
    sharpened = module.sharpen(step)
    # Far from the edge nothing; beside it the mean is half a Gaussian's weight off, which is added three times.
    assert sharpened[0, 0, 24, 2].item() == pytest.approx(0.45, abs=1e-6)
    x = torch.arange(-8, 9.0)
    weights = torch.exp(-(x**2) / 8)
    beyond = (weights[x < 0].sum() / weights.sum()).item()
    assert sharpened[0, 0, 24, 24].item() == pytest.approx(0.55 + 3 * 0.1 * beyond, abs=1e-5)


def test_adaptation_of_trained_networks(photos, tmp_path, monkeypatch, capsys):
    module = script("trained_adaptation", monkeypatch)
    noise = torch.rand(1, 3, 192, 192, generator=torch.Generator().manual_seed(0))
    fit_pristine(noise, sharpness=0.0).save(tmp_path / "pristine.npz")
    monkeypatch.setattr(module, "STEPS", 2)
    words = ["--choice", str(photos), "--test", str(photos), "--niqe", str(tmp_path / "pristine.npz")]
    words += ["--output", str(tmp_path / "run"), "--limit", "2"]
    module.main(words)
    record = json.loads((tmp_path / "run" / "adaptation.json").read_text())
    rows = record["photos"]["test"]
    assert set(record["chosen"]) == {"fidelity", "sharpness"}
    mean = sum(row["3e-05 2"]["psnr"] - row["3e-06 0"]["psnr"] for row in rows.values()) / 2
    assert record["test"]["3e-05 2"]["psnr"]["mean"] == pytest.approx(mean)
    assert all(row["3e-05 2"]["stayed"] < row["3e-05 1"]["stayed"] < 100 for row in rows.values())
    capsys.readouterr()
    module.main(words)  # all that was measured is read
    assert "coffee: " not in capsys.readouterr().out


def test_adaptation_to_photos_own_blurs(photos, tmp_path, monkeypatch, capsys):
    module = script("own_blur", monkeypatch)
    adapt = module.adapt_to_blur
    monkeypatch.setattr(
        module, "adapt_to_blur", lambda *x: adapt(*x, steps=1, kernel_size=9, least_agreement=0.0, least_explained=0.0)
    )
    words = ["--test", str(photos), "--output", str(tmp_path / "run")]
    module.main([*words, "--minutes", "0"])
    assert "call again" in capsys.readouterr().out
    module.main(words)
    record = json.loads((tmp_path / "run" / "own_blur.json").read_text())
    by_hand = [
        sum(row["image"]["psnr"] - row["plain"]["psnr"] for row in blurs.values()) / 4
        for blurs in record["photos"].values()
    ]
    assert record["changes"]["all"]["psnr"]["mean"] == pytest.approx(sum(by_hand) / 2)
    assert "| all | " in capsys.readouterr().out
    assert (tmp_path / "run" / "own_blur.png").is_file()
    module.main(words)  # nothing is measured again
    assert " -> " not in capsys.readouterr().out


def test_the_plain_loop_is_adapt(photos, monkeypatch):
    """An independent writing of Algorithm 1 gives what the package gives."""
    from reblurkit.adaptation import adapt

    module = script("trained_adaptation", monkeypatch)
    torch.manual_seed(1)
    network, reblur_net = FoldedUNet(widths=[8], blocks=[1]).eval(), ReblurNet(width=4).eval()
    blurry = torch.rand(1, 3, 32, 32)
    *_, last = module.by_step(network, reblur_net, blurry, 1e-4)
    torch.testing.assert_close(last, adapt(network, reblur_net, blurry, steps=module.STEPS, lr=1e-4).image)


def test_clips_of_a_camera_that_pans(photos, tmp_path, monkeypatch, capsys):
    pytest.importorskip("skimage.registration")  # TV-L1
    module = script("pan_finetune", monkeypatch)
    monkeypatch.setattr(module, "HEIGHT", 48)
    monkeypatch.setattr(module, "WIDTH", 64)
    words = ["--photos", str(photos), "--test", str(photos), "--output", str(tmp_path / "run"), "--steps", "1"]
    module.main([*words, "--limit", "1"])
    assert "coffee: blurry " in capsys.readouterr().out
    module.main([*words, "--limit", "2"])
    out = capsys.readouterr().out
    assert "rocket: blurry " in out
    assert "coffee: blurry " not in out  # kept
    record = json.loads((tmp_path / "run" / "pan_finetune.json").read_text())
    gain = record["gains"]["fine-tuned - control"]
    by_hand = [clip["fine-tuned"]["psnr"] - clip["control"]["psnr"] for clip in record["clips"].values()]
    assert gain["mean"] == pytest.approx(sum(by_hand) / 2)


def test_a_panned_clip_is_the_mean_of_positions(photos, monkeypatch):
    module = script("pan_finetune", monkeypatch)
    ramp = torch.linspace(0, 1, 640)[None, None, :].expand(3, 480, 640)
    blurry, sharp = module.pan(ramp, 3)
    assert blurry.shape == sharp.shape == (module.FRAMES, 3, module.HEIGHT, module.WIDTH)
    # The mean of a ramp is what its middle shows, but for the path's bend: a sixth of a pixel of half the size.
    torch.testing.assert_close(blurry, sharp, atol=1 / 6 / 320, rtol=0)
    assert (sharp[1:] - sharp[:-1]).abs().amax() > 1e-3  # it moves


def test_blur_that_is_too_long(photos, tmp_path, monkeypatch, capsys):
    module = script("long_blur", monkeypatch)
    write_image(torch.rand(3, 40, 50), tmp_path / "pairs" / "blur_a.png")
    write_image(torch.rand(3, 40, 50), tmp_path / "pairs" / "sharp_a.png")
    words = ["--test", str(photos), "--pairs", str(tmp_path / "pairs"), "--run", str(tmp_path / "run")]
    module.main(words)
    assert "shake 61: 2 photos" in capsys.readouterr().out
    record = json.loads((tmp_path / "run" / "long_blur.json").read_text())
    rows = record["photos"]["shake 41"].values()
    by_hand = [row["scales"]["psnr"] - row["alone"]["psnr"] for row in rows]
    assert record["changes"]["shake 41"]["psnr"]["mean"] == pytest.approx(sum(by_hand) / 2)
    assert [record["changes"][name]["psnr"]["photos"] for name in ("sharp", "real pairs")] == [2, 1]
    assert "| shake 41 | " in (tmp_path / "run" / "long_blur.md").read_text()
    assert (tmp_path / "run" / "long_blur.png").is_file()
    module.main(words)  # nothing is measured again
    assert "shake 61: 2 photos" not in capsys.readouterr().out
    with pytest.raises(SystemExit, match="was measured with"):
        module.main(["--test", str(tmp_path / "pairs"), "--run", str(tmp_path / "run")])
    with pytest.raises(SystemExit):
        module.main(["--test", str(photos), "--network", "unet"])
    assert "--network and --weights together" in capsys.readouterr().err


def test_images_that_agree_with_their_photo(photos, tmp_path, monkeypatch, capsys):
    module = script("consistency", monkeypatch)
    monkeypatch.setattr(module, "BLURS", {"shake 15": module.BLURS["shake 15"]})
    monkeypatch.setattr(module, "OTHER", {})
    test, pairs, run = (tmp_path / name for name in ("large", "pairs", "run"))
    image = torch.from_numpy(coffee().copy()).permute(2, 0, 1)[:, 100:356, 100:380] / 255
    for path in (test / "coffee.png", pairs / "blur_a.png", pairs / "sharp_a.png"):
        write_image(image, path)
    words = ["--test", str(test), "--pairs", str(pairs), "--run", str(run)]
    module.main(words)
    assert "shake 15: 1 photos" in capsys.readouterr().out
    record = json.loads((run / "consistency.json").read_text())
    (row,) = record["photos"]["shake 15"].values()
    change = row["consistent"]["psnr"] - row["deblurred"]["psnr"]
    assert record["changes"]["shake 15"]["psnr"]["mean"] == pytest.approx(change)
    assert (change == 0) == (not any(map(any, row["accepted"])))
    assert record["photos"]["sharp"]["coffee"]["accepted"] == [[False]]
    assert "| shake 15 | " in (run / "consistency.md").read_text()
    assert (run / "consistency.png").is_file()
    module.main(words)  # nothing is measured again
    assert "shake 15: 1 photos" not in capsys.readouterr().out
    with pytest.raises(SystemExit, match="was measured with"):
        module.main(["--test", str(pairs), "--run", str(run)])
    with pytest.raises(SystemExit):
        module.main([])
    assert "--test is needed" in capsys.readouterr().err
