"""What ``test`` and ``validate`` say: every metric, of every image, in digits and arrows, beside the blurry input's."""

from __future__ import annotations

import csv

import pytest
import torch
import yaml

from reblurkit.cli.results import nothing_learnt
from reblurkit.data import read_image, write_image
from reblurkit.metrics import PSNR, fit_pristine
from tests.cli.test_main import project, run, save  # noqa: F401  # a fixture


def rows_of(path):
    with path.open() as file:
        return {row.pop("name"): {name: float(value) for name, value in row.items()} for row in csv.DictReader(file)}


def options(project):  # noqa: F811
    config = yaml.safe_load((project / "config.yaml").read_text())
    del config["model"]["init_args"]["reblur_net"]
    config["trainer"]["logger"] = {"class_path": "CSVLogger", "init_args": {"save_dir": "run"}}
    return config


def test_chosen_metrics_of_every_image(project, capsys):  # noqa: F811
    config = options(project)
    niqe = {"class_path": "NIQE", "init_args": {"pristine": "model.npz"}}
    metrics = {"psnr_8_bit": {"class_path": "PSNR", "init_args": {"quantize": True}}, "niqe": niqe, "ssim": None}
    config["model"]["init_args"]["metrics"] = metrics
    (project / "config.yaml").write_text(yaml.safe_dump(config))
    fit_pristine(torch.rand(2, 3, 192, 192), sharpness=0.0).save(project / "model.npz")
    for kind in ("blur", "sharp"):
        for index in range(2):
            save(project / "pairs" / "test" / kind / f"{index}.png", (96, 192))
    save(project / "pairs" / "test" / "blur" / "1.png", (96, 192))
    assert run("test", "--model.network", "torch.nn.Identity") == 0
    out, said = capsys.readouterr()
    assert "test/psnr_8_bit (dB) ↑" in out
    assert "test/niqe ↓" in out
    assert "test/gradient_ratio → 1" in out
    assert "test/ssim" not in out
    assert "Runningstage" not in out  # Lightning's table
    (table,) = project.glob("run/**/per_image.csv")
    assert f"each image: {table.relative_to(project)}" in said
    rows = rows_of(table)
    assert list(rows) == ["test/blur/0", "test/blur/1"]
    assert {"psnr", "psnr_blurry", "psnr_8_bit", "niqe", "gradient_ratio"} <= rows["test/blur/0"].keys()


def test_a_network_that_has_learnt_nothing_shows(project, capsys):  # noqa: F811
    (project / "config.yaml").write_text(yaml.safe_dump(options(project)))
    noise = torch.rand(3, 24, 24)
    for index in range(2):
        write_image(noise.roll(index, -1), project / "pairs" / "test" / "blur" / f"{index}.png")
        write_image(noise, project / "pairs" / "test" / "sharp" / f"{index}.png")
    assert run("test", "--model.network", "torch.nn.Identity") == 0
    assert ": the network leaves the images as they are" in capsys.readouterr().err
    (table,) = project.glob("run/**/per_image.csv")
    rows = rows_of(table)
    assert rows["test/blur/0"]["psnr_blurry"] == 100
    images = (read_image(project / "pairs" / "test" / kind / "1.png")[None] for kind in ("blur", "sharp"))
    psnr = PSNR()
    psnr.update(*images)
    assert rows["test/blur/1"]["psnr"] == pytest.approx(float(psnr.compute()), abs=1e-4)
    (log,) = project.glob("run/**/metrics.csv")
    (measured,) = csv.DictReader(log.open())
    assert float(measured["test/psnr"]) == pytest.approx((100 + rows["test/blur/1"]["psnr"]) / 2, abs=1e-4)


def test_what_is_said_of_a_network_that_makes_it_worse():
    assert nothing_learnt({"val/psnr": torch.tensor(26.0), "val/psnr_blurry": torch.tensor(25.0)}) is None
    before = {"test/reblur_psnr": torch.tensor(20.0), "test/reblur_psnr_deblurred": torch.tensor(22.0)}
    assert nothing_learnt(before).endswith(": the network brings back no blur")
    before = {"val/psnr": torch.tensor(20.0), "val/psnr_sharp": torch.tensor(22.0)}
    assert nothing_learnt(before).endswith(": the network makes the images worse")
