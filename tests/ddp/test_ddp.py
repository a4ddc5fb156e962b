from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from reblurkit.data import write_image

ROOT = Path(__file__).parents[2]


def run(*words):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, *map(str, words)], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def train(script, folder, processes):
    run(ROOT / "tests" / "ddp" / script, folder, processes)
    return [torch.load(folder / f"{processes}-{rank}.pt", weights_only=True) for rank in range(processes)]


@pytest.mark.parametrize("script", ["train.py", pytest.param("finetune.py", marks=pytest.mark.slow)])
def test_two_processes_agree_and_equal_one_with_the_joined_batch(tmp_path, script):
    first, second = train(script, tmp_path, 2)
    (joined,) = train(script, tmp_path, 1)
    assert first.keys() == joined.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name
    torch.testing.assert_close(first, joined, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_two_processes_adapt_their_own_uneven_shares(tmp_path):
    ranks, (alone,) = train("adapt.py", tmp_path, 2), train("adapt.py", tmp_path, 1)
    assert [len(rank["history"]) for rank in ranks] == [3, 2]
    images = ranks[0]["images"] | ranks[1]["images"]
    assert images.keys() == alone["images"].keys()
    for name, image in images.items():
        assert torch.equal(image, alone["images"][name])
    assert sorted(ranks[0]["history"] + ranks[1]["history"]) == sorted(alone["history"])
    for rank in ranks:
        assert rank["metrics"] == pytest.approx(alone["metrics"], abs=1e-6)
    assert alone["metrics"]["test/psnr_plain"] != alone["metrics"]["test/psnr_adapted"]


def test_synthetic_pairs_are_the_same_for_any_workers_and_processes_and_after_resuming(tmp_path):
    for number in range(6):
        write_image(torch.rand(3, 24, 28), tmp_path / "photos" / f"{number}.png")
    (alone,), (first, second) = (train("synthetic.py", tmp_path, processes) for processes in (1, 2))
    for rank in (alone, first, second):
        for workers in (0, 4):
            assert rank[f"cut, {workers} workers"] + rank[f"resumed, {workers} workers"] == rank["whole"]
            assert rank[f"weights, {workers} workers"] == rank["weights"]
    assert first["weights"] == second["weights"]
    assert len(alone["whole"]) == 2 * 20
    assert sorted(first["whole"] + second["whole"]) == sorted(alone["whole"])


def test_metrics_do_not_depend_on_the_number_of_processes(tmp_path):
    (alone,), ranks = train("measure.py", tmp_path, 1), train("measure.py", tmp_path, 2)
    assert len(alone) > 40
    for rank in ranks:
        assert rank == pytest.approx(alone, rel=1e-6, nan_ok=True)


@pytest.mark.slow
def test_the_command_line_trains_validates_draws_and_predicts_with_two_processes(tmp_path):
    words = [
        "--model=DeblurTask",
        "--model.network=UNet",
        "--model.network.widths=[4, 4, 4]",
        "--model.network.blocks=0",
    ]
    words += ["--model.reblur_net=ReblurNet", "--model.reblur_net.width=4", "--data=DemoDataModule"]
    words += ["--data.crops_per_photo=4", "--data.crop=16", "--data.batch_size=2", "--trainer.accelerator=cpu"]
    words += ["--trainer.devices=2", "--trainer.strategy=ddp", f"--trainer.default_root_dir={tmp_path}"]
    run("-m", "reblurkit", "fit", *words, "--trainer.max_epochs=2")
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    assert len(list(tmp_path.rglob("val-epoch=*.png"))) == 2
    run("-m", "reblurkit", "predict", *words, "--ckpt_path", checkpoint, f"--image_writer.folder={tmp_path / 'out'}")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["chelsea.png", "stereo_motorcycle.png"]
