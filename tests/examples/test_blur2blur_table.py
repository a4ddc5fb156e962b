"""The table's command in its smallest form: stages that go on where they were, rows that say what they are."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from scipy import stats
from torch.nn import functional as F

from reblurkit.cli import main as reblurkit_main
from reblurkit.data import PairedFolder, write_image

SCRIPTS = Path(__file__).parents[2] / "examples" / "reproduce"
ARGUMENTS = ["--width", "0.25", "--steps", "0.004", "--output", "out", "--unknown", "gaussian:0.3:2"]


@pytest.fixture
def table(tmp_path, monkeypatch):
    """The script, whose trainings run in this process, in a folder with photos."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.chdir(tmp_path)
    for index in range(5):
        rough = torch.rand(1, 3, 20, 40, generator=torch.Generator().manual_seed(index))
        write_image(F.interpolate(rough, scale_factor=8, mode="bicubic").clamp(0, 1)[0], tmp_path / f"p/{index}.png")
    trained = []

    run_for_real = subprocess.run

    def run(command, check, **options):
        if command[0] == "git":  # of which state of the package a record is
            return run_for_real(command, check=check, **options)
        assert command[:3] == [sys.executable, "-m", "reblurkit"]
        trained.append(next(word for word in command if "save_dir" in word).rpartition("/")[2])
        assert reblurkit_main(command[3:]) == 0
        return None

    monkeypatch.setattr(subprocess, "run", run)
    module = importlib.import_module("blur2blur_table")
    monkeypatch.setattr(module, "trained", trained, raising=False)
    return module


def test_the_table_is_trained_stage_by_stage(table, tmp_path, monkeypatch):
    """Of the four trainings of a deblurring network two, for the time; the others are below."""
    monkeypatch.setattr(table, "TRAININGS", {"alone": "known", "bound": "target"})
    with pytest.raises(SystemExit):
        table.main(["--photos", "p", "--data", "d"])
    table.main(["--photos", "p", *ARGUMENTS])
    first = ["unet_alone", "folded_alone", "blur2blur", "cyclegan", "dualgan"]
    assert table.trained == [*first, "unet_bound", "folded_bound"]
    results = json.loads((tmp_path / "out" / "table.json").read_text())
    rows = {(row["network"], row["row"]): row for row in results["table"]}
    assert len(rows) == 1 + 2 * 3 + 2
    assert all(row["finished"] for row in rows.values())
    assert rows["unet", "Blur2Blur"]["steps"] == [[6, 6], [12, 12]]
    assert "A rehearsal" in (tmp_path / "out" / "table.md").read_text()

    pairs = PairedFolder(tmp_path / "out" / "data", "folders", split=None, blur="testA", sharp="testB")
    psnr = [-10 * ((pair["blurry"] - pair["sharp"]) ** 2).mean().log10().item() for pair in pairs]
    blurry = rows["", "blurry"]
    assert blurry["psnr"][0] == pytest.approx(sum(psnr) / len(psnr), abs=1e-4)
    photos = results["photos"][0]
    differences = [
        one["psnr"] - other["psnr"] for one, other in zip(photos["folded bound"], photos["folded alone"], strict=True)
    ]
    mean, half = rows["folded", "pairs of the camera, the bound"]["psnr - alone"]
    low, high = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert (mean, half) == pytest.approx(((low + high) / 2, (high - low) / 2))
    assert Image.open(tmp_path / "out" / "seed0_unet.png").width == 7 * (200 + 8) + 8

    table.trained.clear()
    table.main(["--photos", "p", *ARGUMENTS])
    assert table.trained == [], "all is trained"
    longer = [word if word != "0.004" else "0.008" for word in ARGUMENTS]
    table.main(["--photos", "p", *longer, "--minutes", "0"])
    text = (tmp_path / "out" / "table.md").read_text()
    assert table.trained == []
    assert "6 of 12" in text


@pytest.mark.parametrize("kind", ["realistic", "shuffled"])
def test_a_stage_goes_on_where_it_was(table, tmp_path, kind):
    short = table.small(0.25)._replace(steps=dict.fromkeys(("deblurrer", "blur2blur", "cyclegan", "dualgan"), 6))
    table.simulate(table.load_photos("p", 5, 64), table.unknown_blur("gaussian:0.3:1"), tmp_path / "data")
    for steps in (6, 12):
        form = short._replace(steps=dict.fromkeys(short.steps, steps))
        (stage,) = [each for each in table.stages(form, tmp_path / "data", 64, 4) if each.name == f"unet_{kind}"]
        table.train(stage, tmp_path / "stage", 0, float("inf"))
        assert table.steps_of(tmp_path / "stage") == steps


def test_the_full_form_names_configurations_that_exist(table):
    names = {config for stage in table.stages(table.FULL, Path("DATA"), None, None) for config in stage.configs}
    assert {"nafnet", "restormer", "on_known", "on_target", "on_realistic", "on_shuffled", "blur2blur"} <= names
    assert all((table.CONFIGS / f"{name}.yaml").is_file() for name in names)
    assert {path.stem for path in table.CONFIGS.glob("*.yaml")} == names
