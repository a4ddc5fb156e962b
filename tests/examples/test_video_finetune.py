"""What the experiment of fine-tuning on real frames rests on."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from scipy import stats

from reblurkit.data import write_image

PATH = Path(__file__).parents[2] / "examples" / "reproduce" / "video_finetune.py"


@pytest.fixture(scope="module")
def experiment():
    spec = importlib.util.spec_from_file_location("video_finetune", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def sequence(experiment, tmp_path):
    for index in range(31):
        write_image(torch.full((3, 8, 10), index / 51), tmp_path / "v" / f"{index}.png")
    return experiment.Sequence("v", experiment.read_frames(tmp_path / "v", None), window=5, spacing=5)


def test_held_out_frames_share_nothing_with_the_clips(sequence):
    seen, unseen = sequence.split(0.6)

    def used(centre, steps):
        return {centre + 5 * step + offset for step in steps for offset in range(-2, 3)}

    tuned_on = set().union(*(used(centre, (-1, 0, 1)) for centre in seen))
    held_out = set().union(*(used(centre, (0,)) for centre in unseen))
    assert tuned_on == set(range(19))
    assert held_out == set(range(19, 31))
    assert min(len(seen), len(unseen)) > 3


def test_clips_are_means_of_the_sharp_frames(experiment, sequence):
    clip = experiment.Clips([(sequence, 12)], length=1, crop=8, seed=0)[0]
    torch.testing.assert_close(clip.mean((1, 2, 3)), torch.tensor([7.0, 12.0, 17.0]) / 51)


def test_the_chart_moves_by_whole_and_broken_pixels(experiment):
    still, _, moved = (frame[:, 40:150, 40:200] for frame in experiment.moving_chart(frames=3))
    assert still.min() >= 0.1
    assert still.max() <= 0.9
    angle = 2 * torch.pi * torch.tensor(2 / 50)  # shifts at frame 2: 2.98 to the right, 2.94 downwards
    expected = still.roll((round(8 * (1.5 * angle).sin().item()), round(12 * angle.sin().item())), (1, 2))
    assert (moved - expected)[:, 8:-8, 8:-8].abs().mean() < 0.1 < (moved - still).abs().mean()


def test_intervals_are_students(experiment):
    values = [0.3, 0.5, 0.1, 0.2]
    mean, half = experiment.interval(values)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (mean - half, mean + half) == pytest.approx((low, high))


def test_a_seed_is_read_back_where_it_holds_what_is_asked_for(experiment, tmp_path):
    path = tmp_path / "seed-0.json"
    row = {"psnr": 30.5, "ssim": 0.9}
    runs = {name: {"seen": row, "unseen": row} for name in ("before", "line, 3 frames")}
    path.write_text(json.dumps({"settings": {"lr": "1"}, "runs": runs}))
    read = experiment.stored_seed
    assert read(path, {"lr": "1"}, ["before"], {"seen"}) == {"before": {"seen": row}}
    assert read(path, {"lr": "1"}, ["before"], {"seen", "single"}) is None
    assert read(path, {"lr": "1"}, ["before", "warp, 3 frames"], {"seen"}) is None
    assert read(path, {"lr": "2"}, ["before"], {"seen"}) is None
    assert read(tmp_path / "seed-1.json", {"lr": "1"}, ["before"], {"seen"}) is None
