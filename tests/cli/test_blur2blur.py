"""The translator from the command line: folders and files in, pictures, checkpoints and deblurred files out."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from scipy import stats

from reblurkit.cli import main
from reblurkit.data import read_image, write_image
from reblurkit.models import FullSize, UNet
from reblurkit.models.deblur.mimo_unet import MIMOUNet
from reblurkit.models.kernel_wizard import KernelWizard

ROOT = Path(__file__).parents[2]
OWN = """
from reblurkit.models import UNet


class MyNet(UNet):
    def __init__(self, blocks: int = 1):
        super().__init__(blocks, (4, 4, 4))
"""
TINY_WIZARD = {"width": 4, "code_width": 4, "front_blocks": 0, "back_blocks": 0}


@pytest.fixture
def project(user_folder):
    """A user's folder: a network of their own with its weights, and a folder for data."""
    (user_folder / "mine.py").write_text(OWN)
    torch.manual_seed(5)
    torch.save(UNet(1, (4, 4, 4)).state_dict(), user_folder / "mine.pth")
    torch.save(KernelWizard(**TINY_WIZARD).state_dict(), user_folder / "wizard.pth")
    return user_folder


def configuration(project, **options):
    """The example's, with small networks, features of the user's network, and two steps."""
    config = yaml.safe_load((ROOT / "examples" / "configs" / "blur2blur.yaml").read_text())
    model, data = config["model"]["init_args"], config["data"]["init_args"]
    mine = {"class_path": "mine.MyNet"}
    taps = {"network": mine, "layers": ["blocks"], "weights": "mine.pth"}
    model["generator"]["init_args"] |= {"blocks": 1, "width": 8}
    model["discriminator"]["init_args"] = {"width": 4, "layers": 1}
    model |= {
        "perceptual": {"class_path": "LayerFeatures", "init_args": taps},
        "deblur_network": mine,
        "deblur_weights": "mine.pth",
    }
    model["known_blur"]["init_args"] |= {"weights": "wizard.pth"}
    model["known_blur"]["init_args"]["kernel_wizard"]["init_args"] = TINY_WIZARD
    data |= {"root": "data", "num_workers": 0, "resize": None, **options.pop("data", {})}
    model |= options
    config["trainer"] |= {
        "max_epochs": 1,
        "limit_train_batches": 2,
        "check_val_every_n_epoch": 1,
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "log_every_n_steps": 1,
        "default_root_dir": "run",
        "logger": {"class_path": "CSVLogger", "init_args": {"save_dir": "run"}},
    }
    config["trainer"]["callbacks"][1]["init_args"]["every_n_epochs"] = 1
    (project / "config.yaml").write_text(yaml.safe_dump(config))


def run(*words):
    return main([words[0], "--config", "config.yaml", *words[1:]])


def logged(project, version):
    (log,) = project.glob(f"run/**/version_{version}/metrics.csv")
    rows = list(csv.DictReader(log.open()))
    return {name: float(value) for row in rows for name, value in row.items() if value}


def check_a_whole_story(project, name, size):
    """Fit, pictures, test with ground truth, predict with both networks; of an image of the test folder."""
    assert run("fit") == 0
    values = logged(project, 0)
    assert {"train/loss_perceptual", "train/score_real", "val/content_ssim", "val/colour_shift"} <= values.keys()
    assert {"lr-generator", "lr-discriminator"} <= values.keys()
    assert values["val/content_ssim"] > 0.9
    (picture,) = project.glob("run/**/val-epoch=0.png")
    assert Image.open(picture).width > 5 * 360  # blurry, translated, known blur, deblurred both ways
    (checkpoint,) = project.glob("run/**/last.ckpt")
    saved = torch.load(checkpoint, weights_only=True)
    assert {key.split(".")[0] for key in saved["state_dict"]} == {"generator", "discriminator"}
    assert run("test", "--ckpt_path", str(checkpoint), "--data.test_sharp", "testB") == 0
    values = logged(project, 1)
    blurry, sharp = (read_image(project / "data" / folder / f"{name}.png") for folder in ("testA", "testB"))
    expected = -10 * ((blurry - sharp) ** 2).mean().log10().item()
    assert values["test/psnr_blurry"] == pytest.approx(expected, abs=1e-3)
    assert {"test/psnr", "test/psnr_alone", "test/ssim"} <= values.keys()
    (table,) = project.glob("run/**/per_image.csv")
    (row,) = csv.DictReader(table.open())
    assert row.pop("name").endswith(name)
    assert {f"test/{column}": pytest.approx(float(value), abs=1e-3) for column, value in row.items()} == {
        column: value for column, value in values.items() if column.startswith("test/")
    }
    assert run("predict", "--ckpt_path", str(checkpoint), "--image_writer.folder", "out") == 0
    generator, network = MIMOUNet(1, 8), UNet(1, (4, 4, 4))
    state = saved["state_dict"]
    generator.load_state_dict({key[10:]: value for key, value in state.items() if key.startswith("generator.")})
    network.load_state_dict(torch.load(project / "mine.pth", weights_only=True))
    with torch.no_grad():
        deblurred = FullSize(network.eval())(FullSize(generator.eval())(blurry[None]).clamp(0, 1))[0].clamp(0, 1)
    written = read_image(project / "out" / f"{name}.png")
    assert written.shape == (3, *size)
    torch.testing.assert_close(written, deblurred, rtol=0, atol=0.51 / 255)


def test_a_users_camera_and_network(project):
    for folder in ("trainA", "trainB", "trainC", "trainD", "testA", "testB"):
        for index in range(1 if folder.startswith("test") else 2):
            write_image(torch.rand(3, 258, 263) * 0.5 + 0.25, project / "data" / folder / f"{index}.png")
    configuration(project)
    check_a_whole_story(project, "0", (258, 263))


def test_gopro_and_another_averaging(project, shared_data):
    """Unknown: frames averaged without gamma; known: GoPro's own pairs, by transfer."""
    parts = {
        "trainA/a": "domains/lin_cu",
        "trainB/b": "pairs/sharp_gopro_flower",
        "trainC/c": "pairs/blur_gopro_flower",
        "trainD/d": "pairs/sharp_gopro_flower",
        "testA/cu": "domains/gamma_cu",
        "testB/cu": "pairs/sharp_gopro_cu",
    }
    for name, source in parts.items():
        (project / "data" / name).parent.mkdir(parents=True)
        image = Image.open(shared_data / f"{source}.png").convert("RGB")
        image.crop((0, 0, min(image.width, 400), min(image.height, 300))).save(project / "data" / f"{name}.png")
    size = read_image(project / "data" / "testA" / "cu.png").shape[1:]
    configuration(project, data={"batch_size": 1})
    check_a_whole_story(project, "cu", tuple(size))


def test_bad_input_ends_in_one_line(project, capsys):
    for folder in ("trainA", "trainB", "testA"):
        write_image(torch.rand(3, 256, 256), project / "data" / folder / "0.png")

    def fails(*words):
        capsys.readouterr()
        assert run("fit", *words) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "reblurkit: error: " in line]
        return line

    configuration(project)
    assert "add them to the data (trainC, trainD), or use ShakeBlur" in fails()
    assert "blurry and sharp images are the same folder" in fails("--data.sharp", "trainA")
    assert "no folder data/photos" in fails("--data.blurry", "photos")
    assert "mine.pth" in fails("--model.known_blur.weights", "mine.pth")
    shutil.copytree(project / "data" / "trainA", project / "data" / "trainC")
    shutil.copytree(project / "data" / "trainA", project / "data" / "trainD")
    assert "divide by 128" in fails("--data.crop", "200")
    assert "hinge" in fails("--model.adversarial", "least squares")


def test_networks_without_weights_are_named(project, capsys):
    for folder in ("trainA", "trainB", "trainC", "trainD", "testA"):
        write_image(torch.rand(3, 256, 256), project / "data" / folder / "0.png")
    configuration(project)
    quick = ["--trainer.fast_dev_run", "true"]
    assert run("fit", *quick) == 0
    assert "built with" not in capsys.readouterr().err
    config = yaml.safe_load((project / "config.yaml").read_text())
    config["model"]["init_args"]["deblur_weights"] = None
    config["model"]["init_args"]["known_blur"]["init_args"]["weights"] = None
    (project / "config.yaml").write_text(yaml.safe_dump(config))
    assert run("fit", *quick) == 0
    said = capsys.readouterr().err
    assert "no --model.deblur_weights: the deblurring network has the weights that it was built with" in said
    assert "no weights of BlurTransfer: the known blur is made by the weights that its network was built with" in said


def test_kernel_wizard_trains_from_the_command_line(project):
    for kind in ("blur", "sharp"):
        write_image(torch.rand(3, 256, 256), project / "pairs" / kind / "0.png")
    splits = [f"--data.{split}_split=null" for split in ("train", "val", "test")]
    words = ["fit", "--model", "KernelWizardTask", "--model.network", "KernelWizard"]
    words += [f"--model.network.{name}={value}" for name, value in TINY_WIZARD.items()]
    words += ["--data", "PairedDataModule", "--data.root", "pairs", "--data.num_workers", "0", *splits]
    assert main([*words, "--trainer.fast_dev_run", "true", "--trainer.accelerator", "cpu"]) == 0


def test_the_measurement_runs(tmp_path):
    script = ROOT / "examples" / "reproduce" / "blur2blur.py"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(script), "--fast", "--output", str(tmp_path / "out")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    mean, half = results["table"]["psnr translated - alone"]
    differences = [photo["psnr translated"] - photo["psnr alone"] for photo in results["runs"][0]["photos"]]
    assert mean == pytest.approx(sum(differences) / len(differences))
    low, high = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert half == pytest.approx((high - low) / 2)
    assert (tmp_path / "out" / "seed0.png").exists()
