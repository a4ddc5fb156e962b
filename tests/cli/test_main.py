"""The command line, as a user meets it: files in a folder, words after ``reblurkit``, one line when it fails."""

from __future__ import annotations

import csv
import hashlib
import importlib
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from skimage.data import astronaut, coffee, rocket
from torchvision import models

from reblurkit.cli import main
from reblurkit.cli.metric_names import short_number
from reblurkit.core.downloads import RemoteFile
from reblurkit.data import read_image
from reblurkit.metrics import NIQE, fit_pristine
from reblurkit.models import FoldedUNet, ReblurNet, load_pretrained
from reblurkit.models.vgg import VGG_WEIGHTS
from reblurkit.plugins import checkpoint_metrics
from reblurkit.plugins.former_paths import present_paths
from tests.cli.report.test_page import Page

ROOT = Path(__file__).parents[2]
OWN = '''
import lightning as L
import torch
from torch import nn

from reblurkit import ReblurLossMixin


class MyNet(nn.Module):
    """A network of the user's.

    Args:
        width: Channels.
    """

    def __init__(self, width: int = 4):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 3, 3, padding=1))

    def forward(self, image):
        return image + self.layers(image)


class Half(MyNet):
    def forward(self, image):
        return super().forward(image)[..., ::2]


class Eighth(MyNet):
    multiple = 8

    def forward(self, image):
        height, width = image.shape[-2:]
        return super().forward(image)[..., : height // 8 * 8, : width // 8 * 8] + 0 * image


class NotANumber(MyNet):
    def forward(self, image):
        return super().forward(image) * float("nan")


class GreyDnCNN(nn.Module):
    """Zhang et al.'s denoiser for grey images, on each channel."""

    def __init__(self):
        super().__init__()
        layers = [nn.Conv2d(1, 64, 3, padding=1), nn.ReLU()]
        for _ in range(15):
            layers += [nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()]
        self.model = nn.Sequential(*layers, nn.Conv2d(64, 1, 3, padding=1))

    def forward(self, image):
        grey = image.flatten(0, 1)[:, None]
        return (grey - self.model(grey)).view_as(image)


class MyDeblur(ReblurLossMixin, L.LightningModule):
    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.configure_reblur()

    def training_step(self, batch, batch_idx):
        deblurred = self.network(batch["blurry"])
        loss = nn.functional.l1_loss(deblurred, batch["sharp"])
        return loss + self.reblur_loss(deblurred, batch["sharp"], batch["blurry"])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-4)
'''


def save(path, size=(24, 24)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)


def make_pairs(root):
    for split in ("train", "val", "test"):
        for kind in ("blur", "sharp"):
            for index in range(2):
                save(root / split / kind / f"{index}.png")


@pytest.fixture
def project(user_folder):
    """A user's folder: own code, pairs, a configuration."""
    (user_folder / "own.py").write_text(OWN)
    make_pairs(user_folder / "pairs")
    config = {
        "model": {
            "class_path": "DeblurTask",
            "init_args": {
                "network": {"class_path": "own.MyNet", "init_args": {"width": 3}},
                "reblur_net": {"class_path": "ReblurNet", "init_args": {"blocks": 1, "width": 4}},
            },
        },
        "data": {
            "class_path": "PairedDataModule",
            "init_args": {"root": "pairs", "crop": 16, "batch_size": 2, "num_workers": 0},
        },
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False, "default_root_dir": "run"},
    }
    (user_folder / "config.yaml").write_text(yaml.safe_dump(config))
    return user_folder


def run(*words):
    return main([*words[:1], "--config", "config.yaml", *words[1:]])


def test_a_users_network_trains_tests_and_predicts_from_yaml_alone(project):
    assert run("fit") == 0
    (checkpoint,) = project.glob("run/**/*.ckpt")
    weights = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert weights["network.layers.0.weight"].shape == (3, 3, 3, 3)
    assert any(key.startswith("reblur.") for key in weights)
    assert list(project.glob("run/**/val-epoch=0.png"))
    assert run("validate", "--ckpt_path", str(checkpoint)) == 0
    assert run("test", "--ckpt_path", str(checkpoint)) == 0
    assert run("predict", "--ckpt_path", str(checkpoint), "--image_writer.folder", "out") == 0
    assert sorted(path.name for path in project.glob("out/**/*.png")) == ["0.png", "1.png"]


def test_photos_without_sharp_partners_are_deblurred(project, capsys):
    assert run("fit", "--trainer.limit_val_batches", "0") == 0
    (checkpoint,) = project.glob("run/**/*.ckpt")
    save(project / "holiday" / "beach" / "a.png")
    save(project / "holiday" / "b.jpg", size=(20, 32))
    words = ["predict", "--ckpt_path", str(checkpoint), "--image_writer.folder", "out"]
    assert run(*words, "--data.predict_root", "holiday") == 0
    assert sorted(path.relative_to("out").as_posix() for path in Path("out").rglob("*.png")) == ["b.png", "beach/a.png"]
    assert run(*words, "--data.predict_root", "nowhere") == 2
    assert "no folder nowhere" in capsys.readouterr().err


def test_a_users_lightning_module_with_the_mixin_trains(project):
    assert (
        run("fit", "--model", "own.MyDeblur", "--model.network", "own.MyNet", "--trainer.limit_val_batches", "0") == 0
    )
    (checkpoint,) = project.glob("run/**/*.ckpt")
    assert torch.load(checkpoint, weights_only=True)["callbacks"]["AuxiliaryOptimizer"]["reblur"]["steps"] == 1


def test_a_reblurring_network_is_trained_beside_a_file_of_weights(project, capsys):
    own = importlib.import_module("own")
    torch.save({"state_dict": own.MyNet(width=3).state_dict()}, "official.pth")
    task = ["--model", "ReblurTask", "--model.network", "own.MyNet", "--model.network.width", "3"]
    task += ["--model.reblur_net", "ReblurNet", "--model.reblur_net.width", "4"]
    options = yaml.safe_load((project / "config.yaml").read_text())
    (project / "config.yaml").write_text(yaml.safe_dump({key: options[key] for key in ("data", "trainer")}))
    assert run("fit", *task, "--model.weights", "official.pth") == 0
    assert "no --model.weights" not in capsys.readouterr().err
    (checkpoint,) = project.glob("run/**/*.ckpt")
    weights = torch.load(checkpoint, weights_only=True)["state_dict"]
    official = torch.load("official.pth", weights_only=True)["state_dict"]
    assert all(torch.equal(weights[f"network.{name}"], value) for name, value in official.items())
    assert any(name.startswith("reblur.") for name in weights)
    assert run("test", *task, "--ckpt_path", str(checkpoint)) == 0
    assert run("fit", *task) == 0
    assert "no --model.weights: the deblurring network keeps the weights that it was built" in capsys.readouterr().err
    assert run("fit", *task, "--model.weights", "none.pth") == 2
    assert "none.pth cannot be read as a file of weights: No such file" in capsys.readouterr().err
    assert run("fit", *task, "--model.weights", "official.pth", "--model.network.width", "5") == 2
    assert "official.pth does not fit MyNet: " in capsys.readouterr().err


def test_a_reblurring_network_has_a_budget_and_starts_from_the_one_in_the_box(project, capsys, monkeypatch):
    options = yaml.safe_load((project / "config.yaml").read_text())
    del options["trainer"]["max_epochs"]
    options["model"] = {"class_path": "ReblurTask", "init_args": {"network": {"class_path": "own.MyNet"}}}
    (project / "config.yaml").write_text(yaml.safe_dump(options))
    assert run("fit", "--trainer.max_time", "00:00:00:01") == 0  # a first step takes longer
    assert (
        "trained until reblur_psnr and preserved_psnr are at rest (--model.rest 0.1 dB), and no longer than "
        "--trainer.max_steps 10000 or --trainer.max_time 00:00:00:01"
    ) in capsys.readouterr().err
    assert run("fit", "--trainer.max_epochs", "1", "--model.rest", "null", "--trainer.default_root_dir", "two") == 0
    assert "the reblurring network is trained for --trainer.max_epochs 1\n" in capsys.readouterr().err
    shipped = load_pretrained()
    (written,) = project.glob("two/**/config.yaml")
    task = yaml.safe_load(written.read_text())["model"]["init_args"]
    assert task["reblur_net"] == {
        "class_path": "reblurkit.models.ReblurNet", "init_args": shipped.card["reblur_net"]["arguments"]
    }  # fmt: skip
    assert task["reblur_weights"] == "base"
    (checkpoint,) = project.glob("two/**/*.ckpt")
    measured = checkpoint_metrics(checkpoint)
    assert {"step", "reblur_psnr", "reblur_psnr_deblurred", "preserved_psnr"} == measured.keys()
    # of a later version of the package, in which another network is in the box
    other = shipped._replace(reblur_net=ReblurNet(width=3))
    monkeypatch.setattr("reblurkit.plugins.tasks.reblur.load_pretrained", lambda *_: other)
    deblur = ["deblur", "pairs/test/blur", "--output", "out", "--checkpoint", str(checkpoint), "--config", str(written)]
    deblur += ["--adapt", "1"]
    assert main([*deblur, "--device", "cpu"]) == 0
    line = f"the reblurring network in its validation: reblur_psnr {short_number(measured['reblur_psnr'])} dB ("
    assert line in capsys.readouterr().err


def test_what_images_are_adapted_with_is_told(project, capsys):
    assert run("fit") == 0
    (checkpoint,) = project.glob("run/**/*.ckpt")
    words = ["test", "--ckpt_path", str(checkpoint)]
    assert run(*words) == 0
    line = "the reblurring network in its validation: preserved_psnr "
    assert line not in capsys.readouterr().err
    assert run(*words, "--trainer.callbacks+=TestTimeAdaptCallback", "--trainer.callbacks.steps=1") == 0
    said = capsys.readouterr().err
    measured = short_number(checkpoint_metrics(checkpoint)["preserved_psnr"])
    assert f"{line}{measured} dB; it is poor, as it changes sharp images" in said  # after a step of training


def test_a_third_partys_denoiser_gets_a_reblurring_network(project, shared_data):
    noisy = project / "pairs" / "test" / "blur"
    for path in noisy.iterdir():
        grey = np.asarray(Image.open(shared_data / "photos" / f"kodim0{1 + int(path.stem)}.png").crop((0, 0, 64, 64)))
        noise = np.random.default_rng(0).normal(0, 25, grey.shape)
        Image.fromarray(grey).save(project / "pairs" / "test" / "sharp" / path.name)
        Image.fromarray((grey + noise).clip(0, 255).astype(np.uint8)).save(path)
    task = {
        "network": {"class_path": "own.GreyDnCNN"},
        "weights": str(shared_data / "weights" / "dncnn_25.pth"),
        "reblur_net": {"class_path": "ReblurNet", "init_args": {"width": 4}},
    }
    options = yaml.safe_load((project / "config.yaml").read_text())
    options["model"] = {"class_path": "ReblurTask", "init_args": task}
    options["trainer"]["logger"] = {"class_path": "CSVLogger", "init_args": {"save_dir": "run"}}
    (project / "config.yaml").write_text(yaml.safe_dump(options))
    assert run("fit") == 0
    (checkpoint,) = project.glob("run/**/*.ckpt")
    assert run("test", "--ckpt_path", str(checkpoint)) == 0
    (log,) = project.glob("run/**/version_1/metrics.csv")
    (measured,) = csv.DictReader(log.open())
    # noise of 25/255 leaves 20 dB; a denoiser that has its own weights gains several
    assert float(measured["test/psnr"]) > 26
    assert measured["test/reblur_psnr"]


def test_the_configuration_can_be_printed(project, capsys):
    with pytest.raises(SystemExit) as stop:
        run("fit", "--print_config")
    assert stop.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["model"]["init_args"]["network"]["init_args"] == {"width": 3}
    assert printed["data"]["init_args"]["augment"] is True


def fails(capsys, *words):
    """Run, expect status 2, and return the one line on stderr."""
    capsys.readouterr()
    assert run("fit", *words) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "reblurkit: error: " in line]
    assert len(lines) == 1
    return lines[0]


def test_training_without_a_validation_set(project):
    for name in ("blur", "sharp"):
        for path in (project / "pairs" / "val" / name).iterdir():
            path.unlink()
    assert run("fit", "--trainer.limit_val_batches", "0") == 0


def test_a_folder_that_is_not_divided_is_validated_on_itself_with_a_warning(project):
    splits = [word for name in ("train", "val", "test") for word in (f"--data.{name}_split", "null")]
    root = ["--data.root", "pairs/train"]
    with pytest.warns(UserWarning, match="validation uses the training images"):
        assert run("fit", *root, *splits) == 0


def test_what_was_written_and_what_was_not_loaded_is_said(project, capsys):
    assert run("fit") == 0
    said = capsys.readouterr().err
    assert "run folder: run/lightning_logs/version_0; checkpoint: " in said
    assert run("predict", "--image_writer.folder", "out") == 0
    said = capsys.readouterr().err
    assert "no --ckpt_path: the network has the weights that it was built with" in said
    assert "images: out" in said


def put_vgg_into_the_cache(monkeypatch):
    """VGG-19 with random weights, where its download would be put; there is no network."""
    with torch.device("meta"):
        features = models.vgg19(init_weights=False).features
    state = {f"features.{key}": torch.randn(value.shape) / 50 for key, value in features.state_dict().items()}
    monkeypatch.setitem(VGG_WEIGHTS, "vgg19", RemoteFile("http://127.0.0.1:9/vgg19.pth", "0" * 64))
    path = VGG_WEIGHTS["vgg19"].path()
    path.parent.mkdir(parents=True)
    torch.save(state, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(VGG_WEIGHTS, "vgg19", RemoteFile("http://127.0.0.1:9/vgg19.pth", digest))
    return path


@pytest.mark.parametrize(
    "config",
    sorted((ROOT / "examples" / "configs").glob("table_*/*.yaml")),
    ids=lambda path: f"{path.parent.name}-{path.stem}",
)
def test_example_configurations_train_and_test(project, hub_cache, monkeypatch, config):
    for split in ("train", "test"):
        for kind in ("blur_gamma", "sharp"):
            save(project / "GOPRO_Large" / split / "GOPR0372_07_00" / kind / "000047.png", size=(32, 48))
    for split in ("train", "val"):
        for kind in ("blur", "sharp"):
            save(project / "REDS" / split / f"{split}_{kind}" / "000" / "00000000.png", size=(32, 48))
    small = [
        "--data.crop=32",
        "--data.batch_size=1",
        "--data.num_workers=0",
        "--trainer.fast_dev_run=true",
        "--trainer.precision=32-true",
    ]
    small += ["--model.network.widths=[4, 4, 4]", "--trainer.accelerator=cpu"]
    vgg = put_vgg_into_the_cache(monkeypatch) if "VGGLoss" in config.read_text() else None
    if "my_video" in config.read_text():
        for index in range(3):
            save(project / "my_video" / f"{index}.png")
        text = config.read_text().replace("raft-small", "tvl1").replace("crop: 128", "crop: 24")
        config = project / config.name
        config.write_text(text.replace("num_workers: 4", "num_workers: 0"))
    assert main(["fit", "--config", str(config), *small]) == 0
    if vgg:
        vgg.unlink()  # testing does without
    assert main(["test", "--config", str(config), *small]) == 0


def test_training_starts_from_weights(project):
    state = {"layers.0.weight": torch.ones(3, 3, 3, 3), "layers.0.bias": torch.zeros(3)}
    state |= {"layers.2.weight": torch.zeros(3, 3, 3, 3), "layers.2.bias": torch.zeros(3)}
    torch.save(state, "start.pt")
    assert run("fit", "--model.weights", "start.pt", "--trainer.limit_val_batches", "0") == 0
    (checkpoint,) = project.glob("run/**/*.ckpt")
    trained = torch.load(checkpoint, weights_only=True)["state_dict"]["network.layers.0.weight"]
    torch.testing.assert_close(trained, torch.ones(3, 3, 3, 3), rtol=0, atol=1e-3)


def test_every_loss_is_logged_from_yaml_alone(project):
    shallow = {"class_path": "EfficientNetLiteFeatures", "init_args": {"stages": [1, 2]}}
    config = yaml.safe_load((project / "config.yaml").read_text())
    config["model"]["init_args"] |= {
        "extra_losses": {
            "vgg": {"weight": 0.3, "loss": {"class_path": "VGGLoss", "init_args": {"features": "own.MyNet"}}},
            "efficientnet": {"weight": 0.1, "loss": {"class_path": "VGGLoss", "init_args": {"features": shallow}}},
            "frequency": {"weight": 0.1, "loss": "FrequencyLoss"},
        },
        "discriminator": {"class_path": "PatchGAN", "init_args": {"width": 4, "layers": 2}},
        "adversarial": "hinge",
        "adversarial_weight": 0.001,
        "gradient_penalty": 0.1,
    }
    config["trainer"] |= {
        "logger": {"class_path": "CSVLogger", "init_args": {"save_dir": "run"}},
        "log_every_n_steps": 1,
    }
    (project / "config.yaml").write_text(yaml.safe_dump(config))
    assert run("fit") == 0
    (table,) = project.glob("run/**/metrics.csv")
    logged = set(table.read_text().splitlines()[0].split(","))
    assert {
        f"train/loss_{name}" for name in ("vgg", "efficientnet", "frequency", "adversarial", "discriminator", "reblur")
    } <= logged
    assert {"train/gradient_penalty", "lr-network", "lr-reblur", "lr-discriminator"} <= logged
    (checkpoint,) = project.glob("run/**/*.ckpt")
    saved = torch.load(checkpoint, weights_only=True)
    assert {key.split(".")[0] for key in saved["state_dict"]} == {"network", "reblur", "discriminator"}
    assert set(saved["callbacks"]["AuxiliaryOptimizer"]) == {"reblur", "discriminator"}
    assert run("test", "--ckpt_path", str(checkpoint)) == 0


def test_bad_folders(project, capsys):
    (project / "empty").mkdir()
    assert "no data set folder missing" in fails(capsys, "--data.root", "missing")
    assert "no images match 'train/blur/**/*' in empty" in fails(capsys, "--data.root", "empty")
    (project / "pairs" / "train" / "blur" / "1.png").rename(project / "pairs" / "train" / "blur" / "one.png")
    line = fails(capsys)
    assert "have no partner (one.png)" in line
    assert "have none (1.png)" in line


@pytest.mark.parametrize("workers", ["0", "1"])
def test_bad_files(project, capsys, workers):
    path = project / "pairs" / "train" / "blur" / "1.png"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    line = fails(capsys, "--data.num_workers", workers)
    assert line == "reblurkit: error: cannot read image pairs/train/blur/1.png: image file is truncated"
    path.write_bytes(b"")
    assert fails(capsys).endswith("1.png: the file is empty")
    save(path, (24, 20))
    assert "must have the same size, but have 20 x 24 and 24 x 24 pixels" in fails(capsys)
    save(path)
    assert "24 x 24 pixels, fewer than the crop of 32 x 32" in fails(capsys, "--data.crop", "32")


def test_bad_networks(project, capsys):
    assert "Half must keep the size of its input, 24 x 24, but returned" in fails(capsys, "--model.network", "own.Half")
    line = fails(capsys, "--model.network", "own.NotANumber", "--trainer.num_sanity_val_steps", "0")
    assert "the loss is nan in epoch 0, step 0; files of the batch: train/blur/" in line


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--model.network own.Nope", "model.network: own.Nope: module 'own' has no attribute 'Nope'"),
        ("--model.network nopkg.Net", "model.network: nopkg.Net: No module named 'nopkg'"),
        ("--model.network.width x", "model.network.width: own.MyNet: expected a whole number, but came 'x'"),
        ("--model NoTask", "--model: unknown class NoTask"),
        ("--data.nope 3", "data: reblurkit.PairedDataModule: Option 'nope' is not accepted"),
        ("--trainer.max_epochs x", "--trainer.max_epochs: expected a whole number, but came 'x'"),
        ("--model.reblur_weight -1", "--model.reblur_weight must be at least 0 and finite, but"),
        ("--model.reblur_net.blocks -1", "`width` and `fold` at least 1, but are -1, 4 and 1"),
        ("--model.adversarial rgan", "model.adversarial"),
        ("--model.extra_losses '{vgg: {weigh: 1, loss: VGGLoss}}'", "Option 'weigh' is not accepted"),
        ("--data.batch_size 0", "--data.batch_size must be at least 1"),
        ("--data.crop -1", "--data.crop must be at least 1 pixel"),
        ("--nope 3", "unknown option --nope"),
        ("--config none.yaml", "--config none.yaml: there is no such file"),
        ("--data.layout gopr", "unknown layout 'gopr'; known layouts: folders, input-target, gopro"),
        ("--trainer.accelerator gpu", "gpu backend found!; leave out --trainer.accelerator"),
        ("--ckpt_path none.ckpt", "none.ckpt cannot be read as a file of weights: No such file"),
        ("--ckpt_path own.py", "own.py cannot be read as a file of weights: it is cut off, damaged, or"),
    ],
)
def test_bad_options(project, capsys, words, expected):
    if "gpu" in words and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert expected in fails(capsys, *shlex.split(words))


def test_a_checkpoint_of_another_network(project, capsys):
    assert run("fit") == 0
    (checkpoint,) = project.glob("run/**/*.ckpt")
    line = fails(capsys, "--ckpt_path", str(checkpoint), "--model.network.width", "5", "--trainer.max_epochs", "2")
    assert "does not fit the networks: network.layers.0.weight is (3, 3, 3, 3) in the file and (5, 3, 3, 3) in" in line
    assert line.endswith("; the file may be of --model.network.width 3")
    torch.save({"weights": torch.zeros(1)}, "other.ckpt")
    assert fails(capsys, "--ckpt_path", "other.ckpt").endswith(
        "other.ckpt is no Lightning checkpoint: it has no 'state_dict'; DeblurTask takes weights alone by "
        "--model.weights"
    )


def test_a_checkpoint_with_code_inside_is_refused_and_not_run(project, capsys):
    class Canary:
        def __reduce__(self):
            return (exec, ("open('canary', 'w').close()",))

    torch.save({"state_dict": {}, "loops": {}, "callbacks": Canary()}, "evil.ckpt")
    assert "it holds code or objects (exec)" in fails(capsys, "--ckpt_path", "evil.ckpt")
    assert not (project / "canary").exists()


def test_debug_shows_the_traceback(project):
    with pytest.raises(FileNotFoundError):
        run("fit", "--debug", "--data.root", "missing")


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ([], "reblurkit"),
        (["nope"], "reblurkit"),
        (["demo", "--steps", "x"], "reblurkit demo"),
        (["demo", "here"], "reblurkit demo"),
        (["deblur", "a", "--output", "b", "c"], "reblurkit deblur"),
    ],
)
def test_usage(capsys, words, command):
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("reblurkit: error: ")
    assert line.endswith(f"; `{command} --help` lists what there is")


def test_demo(small_box, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "demo").mkdir(parents=True)  # an earlier run
    assert main(["demo", "--steps", "22"]) == 0  # a curve of two points
    folder = tmp_path / "runs" / "demo-2"
    shown = capsys.readouterr().out
    assert shown.startswith("About ")
    photos = re.findall(r"│ (\w+) .*│ +([0-9.]+) │ +([0-9.]+) │ +([+-][0-9.]+) │", shown)
    assert [name for name, *_ in photos] == ["chelsea", "stereo_motorcycle", "astronaut", "coffee", "rocket"]
    for _, before, after, gain in photos:
        assert float(gain) == pytest.approx(float(after) - float(before), abs=0.011)
    assert [gain for *_, gain in photos] == ["+0.00"] * 5  # the small network does nothing, and so nothing is corrected
    results = json.loads((folder / "metrics.json").read_text())
    assert results.keys() == {"blurry", "box", "l1", "reblur", "adapted"}
    assert all(20 < result["psnr"][0] < 40 for result in results.values())
    rows = (folder / "metrics.csv").read_text().splitlines()
    assert rows[0] == (
        "version,psnr,psnr_interval,ssim,ssim_interval,niqe_demo_model,niqe_demo_model_interval,"
        "gradient_ratio,gradient_ratio_interval"
    )
    assert len(rows) == 6
    # NIQE against the demo's own photos is named so, and is the library's with that model
    assert "NIQE, demo's model" in shown
    assert "not comparable" in " ".join(shown.split())
    training = (torch.from_numpy(photo).permute(2, 0, 1) / 255 for photo in (astronaut(), coffee(), rocket()))
    niqe = NIQE(fit_pristine(training, sharpness=0.0))
    for name in ("chelsea", "stereo_motorcycle"):
        blurry = read_image(folder / "photos" / f"{name}_blurry.png")
        for half in blurry[None].chunk(2, -2):
            for quarter in half.chunk(2, -1):
                niqe.update(quarter)
    assert results["blurry"]["niqe_demo_model"][0] == pytest.approx(float(niqe.compute()), rel=1e-2)  # 8-bit files
    for picture in ("deblurred.png", "comparison.png"):
        with Image.open(folder / picture) as grid:
            assert grid.width > 600
    for name in ("l1", "reblur"):
        assert torch.load(folder / name / "last.ckpt", weights_only=True)["global_step"] == 22
    assert len(list((folder / "photos").iterdir())) == 2 * 6
    # a report shows it
    assert main(["report", "runs/demo-2"]) == 0
    page = Page((tmp_path / "report.html").read_text())
    assert page.headings[:2] == ["Results", "runs/demo-2/metrics.csv"]
    assert page.cells[0] == "version"
    assert "l1" in page.cells
    assert page.images == 1
    assert "train/loss" in page.headings
    # the commands that it prints work
    make_pairs(tmp_path / "YOUR_FOLDER")
    words = ["--config", f"{folder}/own_data.yaml", "--data.root", "YOUR_FOLDER"]
    assert main(["fit", *words, "--data.crop", "16", "--data.num_workers", "0", "--trainer.fast_dev_run", "true"]) == 0
    # a folder that is asked for is not overwritten
    assert main(["demo", "--steps", "1", "--output", str(folder)]) == 2
    assert "must be new or empty" in capsys.readouterr().err
    assert main(["demo", "--steps", "0", "--output", "x"]) == 2


@pytest.mark.slow
def test_the_demo_starts_both_networks_alike(small_box, tmp_path, monkeypatch):
    """At weight 0 the two runs of the demo would be the same run."""
    from reblurkit.cli import demo

    class Weightless(demo.DeblurTask):
        def __init__(self, network, reblur_net, **options):
            super().__init__(network, reblur_net, reblur_weight=0, **options)

    monkeypatch.setattr(demo, "DeblurTask", Weightless)
    folder = demo.run_demo(str(tmp_path / "run"), steps=3)
    weights = [torch.load(folder / n / "last.ckpt", weights_only=True)["state_dict"] for n in ("l1", "reblur")]
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def test_a_configuration_saved_by_version_0_1_0_loads(project):
    assert main(["fit", "--config", str(Path(__file__).with_name("config_0_1_0.yaml"))]) == 0


@pytest.mark.parametrize(
    "name", ["tasks.DeblurTask", "test_time_adapt.TestTimeAdaptCallback", "datamodules.DemoDataModule"]
)
def test_class_paths_of_version_0_1_0_are_found(name):
    (path,) = present_paths([{"class_path": f"reblurkit.plugins.{name}"}])
    module, _, name = path["class_path"].rpartition(".")
    assert getattr(importlib.import_module(module), name).__module__ == module


@pytest.mark.parametrize("cache", ["true", "kept", "null"])
def test_training_on_sharp_photos_alone(project, hub_cache, cache):
    for number in range(3):
        save(project / "photos" / f"{number}.png", size=(40, 48))
    config = ROOT / "examples" / "configs" / "pretrained" / "base_l1.yaml"
    small = ["--data.crop=32", "--data.batch_size=1", "--model.network.widths=[4, 4]", "--model.network.blocks=[1, 1]"]
    small += ["--data.root=photos", f"--data.cache={cache}", "--trainer.fast_dev_run=true", "--trainer.accelerator=cpu"]
    for command in ("fit", "test"):
        assert main([command, "--config", str(config), *small]) == 0
    folders = {"true": hub_cache / "reblurkit" / "images", "kept": project / "kept"}
    assert [folder.is_dir() for folder in folders.values()] == [cache == name for name in folders]


@pytest.mark.parametrize("stage", ["base_psnr", "base_reblur", "base_video", "reblur_net"])
def test_later_stages_of_the_networks_in_the_box(project, hub_cache, stage):
    for number in range(3):
        save(project / "photos" / f"{number}.png", size=(40, 48))
    network = FoldedUNet(widths=(4, 4), blocks=(1, 1))
    torch.save(network.state_dict(), "earlier.pt")
    config = ROOT / "examples" / "configs" / "pretrained" / f"{stage}.yaml"
    small = ["--data.crop=32", "--data.batch_size=1", "--model.network.widths=[4, 4]", "--model.network.blocks=[1, 1]"]
    small += ["--data.root=photos", "--model.weights=earlier.pt", "--trainer.fast_dev_run=true"]
    assert main(["fit", "--config", str(config), *small, "--trainer.accelerator=cpu"]) == 0
