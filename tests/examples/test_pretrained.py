"""The training of the networks in the box: it goes on where it was, and its card keeps what was before."""

from __future__ import annotations

import math
import subprocess
import time
from argparse import Namespace

import pytest
import torch

from reblurkit.models import FoldedUNet
from tests.examples.test_box_experiments import SCRIPTS, photos, script  # noqa: F401

CONFIG = """
model:
  class_path: DeblurTask
  init_args:
    network: {class_path: FoldedUNet, init_args: {widths: [4], blocks: [1]}}
data:
  class_path: SyntheticBlurDataModule
  init_args: {crop: 8, batch_size: 2, crops_per_photo: 600, num_workers: 0}
trainer:
  max_epochs: 2
  enable_progress_bar: false
  check_val_every_n_epoch: 1000
  num_sanity_val_steps: 0
  log_every_n_steps: 50
  callbacks:
    - class_path: ModelCheckpoint
      init_args: {save_last: true, save_on_train_epoch_end: true}
"""


@pytest.fixture
def module(photos, tmp_path, monkeypatch):  # noqa: F811
    module = script("pretrained", monkeypatch)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "base_l1.yaml").write_text(CONFIG)
    monkeypatch.setattr(module, "CONFIGS", tmp_path / "configs")
    monkeypatch.setattr(module, "OFTEN", 7)
    return module


def test_a_stage_whose_time_is_up_goes_on_where_it_was(module, photos, tmp_path, monkeypatch):  # noqa: F811
    run = tmp_path / "run"

    class TimeIsUpSoon(subprocess.Popen):
        def wait(self, timeout=None):
            if timeout is None:
                return super().wait()
            while not module.checkpoints(run) and self.poll() is None:
                time.sleep(0.05)
            raise subprocess.TimeoutExpired(self.args, timeout)

    with monkeypatch.context() as patch:
        patch.setattr(module.subprocess, "Popen", TimeIsUpSoon)
        assert module.train("base_l1", photos, run, until=0.0) is None
    cut = module.reached(module.checkpoints(run / "base_l1")[-1])
    assert 0 < cut["steps"] < 600
    assert cut["steps"] % 7 == 0 or cut["steps"] == 300
    assert cut["epochs"] == cut["steps"] // 300
    checkpoint = module.train("base_l1", photos, run)
    assert module.reached(checkpoint) == {"steps": 600, "epochs": 2}
    assert module.train("base_l1", photos, run) == checkpoint  # nothing is left to do


def test_checkpoints_that_are_not_whole_are_left_out(module, tmp_path):
    for name in ("last.ckpt", ".reblurkit-1.ckpt"):
        (tmp_path / name).touch()
    assert module.checkpoints(tmp_path) == [tmp_path / "last.ckpt"]


def test_a_stage_that_fails_ends_the_call(module, photos, tmp_path):  # noqa: F811
    with pytest.raises(SystemExit, match="2"):
        module.train("base_l1", tmp_path / "none", tmp_path / "run")


def test_after_the_time_no_stage_begins(module, photos, tmp_path, monkeypatch):  # noqa: F811
    trained = []

    def train(stage, photos, run, until, weights):
        trained.append((stage, weights, until))
        return None if stage == "base_psnr" else f"{stage}.ckpt"

    monkeypatch.setattr(module, "train", train)
    words = ["pretrained.py", "--photos", str(photos), "--test", str(photos), "--run", str(tmp_path), "--minutes", "60"]
    monkeypatch.setattr("sys.argv", words)
    module.main()
    assert [each[:2] for each in trained] == [("base_l1", None), ("base_psnr", "base_l1.ckpt")]
    assert trained[0][2] == trained[1][2] < math.inf  # one limit for all of the call
    trained.clear()
    monkeypatch.setattr("sys.argv", [*words, "--first", "base_video"])
    module.main()
    assert [each[:2] for each in trained] == [
        ("base_video", "base"),
        ("base_scenes", "base_video.ckpt"),
        ("reblur_net", tmp_path / "finished.safetensors"),
    ]


def test_the_card_keeps_what_was_before(module):
    before = {
        "hardware": "a GPU",
        "trained": {"base_l1": 1},
        "recipe": {"base_l1": "old"},
        "training data": {"CC0": 3},
        "limits": ["some"],
    }
    after = {
        "hardware": "a CPU",
        "trained": {"base_video": 2},
        "recipe": {"base_video": "new"},
        "training data": {"CC0": 3},
        "limits": [],
    }
    assert module.continued(before, after) == {
        "hardware": "a GPU; then a CPU",
        "trained": {"base_l1": 1, "base_video": 2},
        "recipe": {"base_l1": "old", "base_video": "new"},
        "training data": {"CC0": 3},
        "limits": ["some"],
    }
    others = module.continued(before, after | {"training data": {}, "limits": ["others"]})
    assert others["training data"] == {"CC0": 3}
    assert others["training data of the stages after"] == {}
    assert others["limits"] == ["others"]


@pytest.mark.parametrize(
    ("first", "message"), [("base_video", "no checkpoint: train first"), ("base_l1", "base_reblur")]
)
def test_nothing_is_written_of_a_run_without_checkpoints(module, tmp_path, monkeypatch, first, message):
    monkeypatch.setattr(module, "CONFIGS", SCRIPTS.parent / "configs" / "pretrained")
    with pytest.raises(SystemExit, match=message):
        module.write({}, Namespace(first=first, run=tmp_path, output=tmp_path, hardware="", photos=tmp_path, limits=[]))
    assert not list(tmp_path.glob("*.safetensors"))


def test_weights_are_averaged_and_kept_in_half_precision(module, tmp_path):
    torch.manual_seed(0)
    one, two, three = (FoldedUNet(widths=[4], blocks=[1]) for _ in range(3))
    for number, network in enumerate((two, three)):
        state = {f"network.{key}": value for key, value in network.state_dict().items()}
        torch.save({"state_dict": state}, tmp_path / f"{number}.ckpt")
    before = [{key: value.clone() for key, value in each.state_dict().items()} for each in (one, two, three)]
    module.averaged(one, [None, tmp_path / "0.ckpt", tmp_path / "1.ckpt"])
    for name, value in one.state_dict().items():
        mean = sum(state[name].double() for state in before) / 3
        torch.testing.assert_close(value.double(), mean, rtol=1e-3, atol=1e-6)
        assert torch.equal(value, value.half().float())
    module.averaged(one, [tmp_path / "1.ckpt"])
    for name, value in one.state_dict().items():
        assert torch.equal(value, before[2][name].half().float())
