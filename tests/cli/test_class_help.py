"""What a class takes, asked for on the command line, on one screen."""

from __future__ import annotations

import subprocess
import sys

import pytest

from reblurkit.cli import main
from reblurkit.plugins.short_names import named_classes


def answer(capsys, *words):
    assert main(["fit", *words]) == 0
    return capsys.readouterr().out


def test_a_task_with_this_packages_classes_only(capsys):
    said = answer(capsys, "--model.help", "DeblurTask")
    assert len(said.splitlines()) < 70
    assert "--model.network  nn.Module  (required)" in said
    assert "networks: DBN, DMPHN, DeblurGAN" in said
    assert "metrics: " in said
    assert not {"torchvision", "timm"} & set(said.replace(".", " ").split())


def test_a_network_asked_about_as_a_model(capsys):
    assert "  --model.network.levels  " in answer(capsys, "--model.help", "DMPHN")
    assert "  --model.reblur_net.blocks  " in answer(capsys, "--model.help", "ReblurNet")
    assert "  --model.discriminator.width  " in answer(capsys, "--model.help=PatchGAN")
    assert "  --model.reblur_weight  " in answer(capsys, "--model.help", "DeblurTask")


@pytest.mark.parametrize("name", sorted(named_classes()))
def test_every_class_by_its_short_name(capsys, name):
    said = answer(capsys, f"--model.anything.help={name}")
    assert said.startswith(f"{name}: ")
    assert len(said.splitlines()) < 80
    assert "``" not in said


def test_what_there_is(capsys):
    assert "PairedDataModule  " in answer(capsys, "--data.help")
    assert "ReblurTask  " in answer(capsys, "--model.help")
    assert "ResultsWriter  " in answer(capsys, "--trainer.callbacks.help")
    assert "AdamW  " in answer(capsys, "--model.optimizer.help")
    assert "--trainer.callbacks.monitor" in answer(capsys, "--trainer.callbacks.help", "EarlyStopping")


def test_a_class_that_there_is_not(capsys):
    assert main(["fit", "--model.help", "DeblurTsk"]) == 2
    assert "unknown class DeblurTsk; did you mean DeblurTask" in capsys.readouterr().err
    assert main(["fit", "--model.help", "nope"]) == 2
    assert "named by its dotted path" in capsys.readouterr().err


def test_a_list_of_options_imports_no_network():
    code = (
        "import sys\nfrom reblurkit.cli import main\ntry: main(['fit', '--help'])\nexcept SystemExit: pass\n"
        "print('imported:', *sys.modules)"
    )
    said = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    options, _, modules = said.stdout.partition("imported:")
    assert "--trainer.max_epochs" in options
    assert not {"timm", "reblurkit.models.deblur.deblurgan_v2"} & set(modules.split())
