"""No file that a command reads runs code: each of these would make a file, the canary, if it did."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from reblurkit.cli import main
from reblurkit.data import write_image
from reblurkit.errors import ArgumentError, ReblurkitError, WeightsError
from reblurkit.models import ReblurNet, UNet
from reblurkit.plugins import DeblurTask, load_networks
from reblurkit.plugins.class_parser import classes_from
from reblurkit.plugins.trained_network import load_translator
from tests.fuzz.hostile import NETWORK, SMALL, endless, hyper_parameters, plant, programs, run_folder, state

TRAINER = {
    "accelerator": "cpu",
    "logger": False,
    "max_steps": 1,
    "enable_checkpointing": False,
    "limit_val_batches": 0,
    "enable_progress_bar": False,
}


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """The folder that a user works in, with pictures, and with what may run in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # so that only naming what is planted keeps it from running
    monkeypatch.delitem(sys.modules, "planted", raising=False)
    canary = tmp_path / "canary"
    plant(tmp_path, canary)
    for split in ("train", "val", "test"):
        for kind in ("blur", "sharp"):
            write_image(torch.rand(3, 32, 32), f"pairs/{split}/{kind}/0.png")
    data = {"class_path": "PairedDataModule", "init_args": {"root": "pairs", "crop": 32, "batch_size": 1}}
    model = {"class_path": "DeblurTask", "init_args": {"network": NETWORK, "reblur_net": {"class_path": "ReblurNet"}}}
    model["init_args"]["reblur_net"]["init_args"] = {"width": 4}
    Path("mine.yaml").write_text(yaml.safe_dump({"model": model, "data": data, "trainer": TRAINER}))
    yield canary
    assert not canary.exists()


def checkpoint(hyper, path="evil.ckpt"):
    """A checkpoint that a training can go on from, with hyper-parameters."""
    content = {
        "state_dict": state(),
        "pytorch-lightning_version": "2.6.0",
        "hyper_parameters": hyper,
        "optimizer_states": [],
        "lr_schedulers": [],
    }
    torch.save(content, path)
    return path


@pytest.mark.parametrize("command", ["validate", "test", "predict", "fit"])
def test_hyper_parameters_of_a_checkpoint_are_not_read(canary, command):
    hostile = dict(hyper_parameters(canary))
    for name in ("class function", "argument module", "options"):
        words = [command, "--config", "mine.yaml", "--ckpt_path", checkpoint(hostile[name])]
        where = ["--image_writer.folder", name] if command == "predict" else []
        assert main([*words, *where]) == 0, name
        assert not canary.exists(), name


def test_a_module_of_this_package_takes_no_arguments_from_a_checkpoint(canary):
    for _, hyper in hyper_parameters(canary):
        with pytest.raises(TypeError, match="network"):
            DeblurTask.load_from_checkpoint(checkpoint(hyper))
        again = DeblurTask.load_from_checkpoint("evil.ckpt", network=UNet(**SMALL), reblur_net=ReblurNet(width=4))
        torch.testing.assert_close(again.state_dict(), state(), rtol=0, atol=0)
        assert again._reblur_options.weight == 1.0
    with pytest.raises(ArgumentError, match="untrusted files"):
        DeblurTask.load_from_checkpoint("evil.ckpt", network=UNet(**SMALL), weights_only=False)
    with pytest.raises(WeightsError, match=r"does not fit DeblurTask: .* it also holds reblur: was it made"):
        DeblurTask.load_from_checkpoint("evil.ckpt", network=UNet(**SMALL))


@pytest.mark.parametrize("name", programs(Path()))
def test_a_configuration_beside_a_checkpoint_is_data(canary, capsys, name):
    program = programs(canary)[name]
    models = {
        "network": {"class_path": "DeblurTask", "init_args": {"network": program}},
        "reblur": {"class_path": "DeblurTask", "init_args": {"network": NETWORK, "reblur_net": program}},
        "all": program,
        "translator": {"class_path": "Blur2BlurTranslator", "init_args": {"generator": program}},
    }
    for kind, model in models.items():
        path = str(run_folder(Path(kind), model))
        if kind == "translator":
            torch.save({"state_dict": {"generator.x": torch.zeros(1)}}, path)
        named = "--translator" if kind == "translator" else "--checkpoint"
        assert main(["deblur", "pairs", "--output", "out", named, path]) == 2, kind
        assert main(["adapt-video", "pairs/test/blur", "--output", "out", "--unsupervised", "--exposure", "0.5",
                     "--checkpoint", path]) == 2  # fmt: skip
        lines = capsys.readouterr().err.splitlines()
        assert all(line.startswith("reblurkit: ") for line in lines), lines
        with pytest.raises(ReblurkitError):
            (load_translator if kind == "translator" else lambda file: load_networks(checkpoint=file))(path)
        assert not canary.exists(), kind


def test_what_is_not_needed_is_not_built(canary):
    unneeded = programs(canary)["class"]
    options = {"network": NETWORK, "reblur_net": {"class_path": "ReblurNet", "init_args": {"width": 4}}}
    others = {"loss": unneeded, "metrics": {"m": unneeded}, "optimizer": unneeded, "weights": "/dev/zero"}
    path = run_folder(Path("run"), {"class_path": "planted.Task", "init_args": {**options, **others}})
    for config in (None, "run/config.yaml"):
        found = load_networks(checkpoint=str(path), config=config)
        weights = {f"network.{name}": value for name, value in found.network.state_dict().items()}
        weights |= {f"reblur.{name}": value for name, value in found.reblur_net.state_dict().items()}
        torch.testing.assert_close(weights, state(), rtol=0, atol=0)


def test_networks_as_large_as_memory_and_larger_are_not_built(canary):
    sizes = [
        {"blocks": 10**9},
        {"widths": [10**5] * 3},
        {"widths": [30_000, 30_000, 30_000]},
        {"blocks": "x"},
        {"x": 1},
    ]
    for number, arguments in enumerate(sizes):
        network = {"class_path": "UNet", "init_args": SMALL | arguments}
        path = run_folder(Path(f"{number}"), {"class_path": "DeblurTask", "init_args": {"network": network}})
        with pytest.raises(ReblurkitError, match="do not make a network"):
            load_networks(checkpoint=str(path))


def test_the_users_own_configuration_names_classes_and_no_functions(canary, capsys):
    """What a user names is run: here nothing is, because it is a function, or no network."""
    for name in ("function", "nested", "argument", "class"):
        model = {"class_path": "DeblurTask", "init_args": {"network": programs(canary)[name]}}
        path = run_folder(Path(name), model)
        config = str(path.with_name("config.yaml"))
        assert main(["deblur", "pairs", "--output", "out", "--checkpoint", str(path), "--config", config]) == 2
        assert main(["fit", "--config", "mine.yaml", "--config", config]) == 2
        assert not canary.exists(), name
    capsys.readouterr()
    for network in ("torch.fx.symbolic_trace", "subprocess.Popen", "os.system"):
        assert main(["deblur", "pairs", "--output", "out", "--network", network]) == 2
        assert "must be a class of torch.nn.Module, but" in capsys.readouterr().err
    with pytest.raises(ArgumentError, match=r"expected a class, but torch\.fx\.symbolic_trace is a function"):
        classes_from({"network": torch.nn.Module}, {"network": programs(canary)["function"]})


def test_a_configuration_without_end_ends(canary, capsys):
    for name, text in endless().items():
        path = run_folder(Path(name), {})
        path.with_name("config.yaml").write_text(text)
        (path.parent / "metrics.csv").write_text("epoch,step,val/psnr\n0,1,3\n")
        config = str(path.with_name("config.yaml"))
        for words in (
            ["deblur", "pairs", "--output", "out", "--checkpoint", str(path)],
            ["deblur", "pairs", "--output", "out", "--checkpoint", str(path), "--config", config],
            ["fit", "--config", config],
            ["report", name],
        ):
            assert main(words) == 2
        assert all(line.startswith("reblurkit: ") for line in capsys.readouterr().err.splitlines())


@pytest.mark.parametrize(
    ("start", "words", "status"),
    [("reblurkit", ["report", "runs"], 0), ("python -m reblurkit", ["fit", "--data", "DemoDataModule"], 2)],
)
def test_files_of_the_current_folder_do_not_pass_for_libraries(tmp_path, start, words, status):
    for name in ("json", "jinja2", "yaml", "numba", "triton", "tensorboardX", "pillow_heif"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')\n")
    for kind in ("input", "target"):
        write_image(torch.rand(3, 8, 8), tmp_path / "pairs" / kind / "0.png")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "metrics.csv").write_text("epoch,step,val/psnr\n0,1,3\n")
    program, *options = start.split()
    command = [Path(sys.executable).with_name(program), *options, *words]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    assert not (tmp_path / "canary").exists()


def test_the_current_folder_is_searched_last_and_for_the_users_classes(tmp_path, monkeypatch):
    from reblurkit.cli.search_path import add_users_folder

    (tmp_path / "my_net.py").write_text("")
    (tmp_path / "json.py").write_text("")
    (tmp_path / "c.yaml").write_text("model: {init_args: {network: my_net.MyNet}}")
    (tmp_path / "plain.yaml").write_text("model: {init_args: {network: UNet}, class_path: json.Model}")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    for words in (["deblur", "my_net.png"], ["deblur", "--config", "plain.yaml"], ["fit", "--model", "json.Model"], []):
        add_users_folder(words)
        assert sys.path == before
    for words in (
        ["fit", "--model=my_net.M"],
        ["deblur", "--network", "my_net.MyNet"],
        ["deblur", "--config", "c.yaml"],
    ):
        monkeypatch.setattr(sys, "path", list(before))
        add_users_folder(words)
        assert sys.path == [*before, str(tmp_path)]
