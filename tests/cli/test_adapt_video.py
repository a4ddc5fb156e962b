"""``reblurkit adapt-video``, as a user meets it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from skimage.data import astronaut

from reblurkit import FlowReblurFinetuneCallback
from reblurkit.cli import main
from reblurkit.cli.video_finetuning import _Draws, _same_length
from reblurkit.data import read_image
from reblurkit.errors import NonFiniteLossError
from reblurkit.inference import Deblurrer
from reblurkit.models import FullSize, UNet, create_model
from reblurkit.plugins.trained_network import load_networks
from tests.cli.test_main import make_pairs, project, save  # noqa: F401  # `project` is a fixture
from tests.data.test_video import encoded

SMALL = {"blocks": 0, "widths": (4, 4, 4)}
ARGS = '{"blocks": 0, "widths": [4, 4, 4]}'


def move(folder, frames=4, step=2, size=(40, 48)):
    """A folder of frames in which a photo moves to the left."""
    folder.mkdir(parents=True)
    for index in range(frames):
        left = 100 + step * index
        Image.fromarray(astronaut()[60 : 60 + size[0], left : left + size[1]]).save(folder / f"frame_{index + 8}.png")


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    move(tmp_path / "clip")
    make_pairs(tmp_path / "pairs")
    torch.save(UNet(**SMALL).state_dict(), "unet.pt")
    return tmp_path


UNET = ["--model", "unet", "--network-args", ARGS, "--weights", "unet.pt"]
QUICK = ["--steps", "2", "--flow", "tvl1", "--crop", "24", "--batch-size", "2", "--workers", "0", "--lr", "0.01"]


def adapt(
    *words, clips=("clip",), output="out", network=UNET, data=("--labelled", "pairs"), time=("--exposure", "0.5")
):
    return main(["adapt-video", *clips, "--output", output, *network, *data, *time, *QUICK, *words])


def fails(capsys, *words, **options):
    capsys.readouterr()
    assert adapt(*words, **options) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "reblurkit: error: " in line]
    return line


@pytest.mark.parametrize("blur", ["kernel", "line", "warp"])
def test_one_clip_is_adapted_to_and_deblurred(work, blur):
    assert adapt("--blur", blur) == 0
    names = sorted(path.name for path in (work / "out" / "clip").iterdir())
    assert names == ["frame_10.png", "frame_11.png", "frame_8.png", "frame_9.png"]
    assert (work / "out" / "comparison.png").is_file()
    assert (work / "out" / "log" / "images" / "motion-step=2.png").is_file()
    header, *rows = (work / "out" / "log" / "metrics.csv").read_text().splitlines()
    assert {"train/loss_unlabelled", "train/loss_labelled"} <= set(header.split(","))
    assert len(rows) == 2
    # the files are what the network of network.pt makes of the frames
    network, start = UNet(**SMALL), UNet(**SMALL)
    network.load_state_dict(torch.load("out/network.pt", weights_only=True))
    start.load_state_dict(torch.load("unet.pt", weights_only=True))
    blurry = read_image("clip/frame_10.png")[None]
    with torch.no_grad():
        expected, before = network(blurry)[0].clamp(0, 1), start(blurry)[0].clamp(0, 1)
    torch.testing.assert_close(read_image("out/clip/frame_10.png"), expected, rtol=0, atol=0.6 / 255)
    assert (expected - before).abs().max() > 2 / 255


def test_it_is_the_same_again(work):
    assert adapt(output="one") == adapt(output="two") == 0
    one, two = (torch.load(f"{name}/network.pt", weights_only=True) for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_group_of_clips_with_one_that_cannot_be_read(work, capsys):
    move(work / "more" / "a", size=(32, 40))
    move(work / "more" / "b", frames=3)
    (work / "broken").mkdir()
    (work / "broken" / "0.png").write_bytes(b"no image")
    assert adapt(clips=("clip", "more", "broken")) == 1
    failed = [line for line in capsys.readouterr().err.splitlines() if "failed" in line]
    assert len(failed) == 1
    assert "reblurkit: failed: broken: cannot read image broken/0.png" in failed[0]
    assert [len(list((work / "out" / name).iterdir())) for name in ("clip", "a", "b")] == [4, 4, 3]


def test_a_network_of_several_frames_and_clips_shorter_than_its_stacks(work):
    torch.save(create_model("dbn", width=4).state_dict(), "dbn.pt")
    for kind in ("blur_gamma", "sharp"):
        for index in range(5):
            save(work / "GOPRO_Large" / "train" / "v" / kind / f"{index}.png")
    move(work / "long", frames=8)
    dbn = ["--model", "dbn", "--network-args", '{"width": 4}', "--weights", "dbn.pt"]
    labelled = ["--labelled", "GOPRO_Large", "--layout", "gopro"]
    assert adapt(clips=("clip", "long"), network=dbn, data=labelled) == 0
    assert len(list((work / "out" / "long").iterdir())) == 8


def test_two_frames_and_no_labelled_data_when_forced(work):
    move(work / "pair", frames=2)
    assert adapt("--frames", "2", clips=("pair",), data=["--unsupervised"]) == 0
    assert len(list((work / "out" / "pair").iterdir())) == 2


def test_a_checkpoint_of_fit_with_its_configuration(project, capsys):  # noqa: F811
    move(project / "clip")
    assert main(["fit", "--config", "config.yaml", "--trainer.limit_val_batches", "0"]) == 0
    (checkpoint,) = project.glob("run/**/*.ckpt")
    saved = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert "config.yaml and" in (line := fails(capsys, network=["--checkpoint", str(checkpoint)], output="out1"))
    assert "it names own.MyNet, which is no network of this package" in line  # and nobody has named own.py
    network = load_networks(checkpoint=str(checkpoint), config="config.yaml").network
    assert torch.equal(network.layers[0].weight, saved["network.layers.0.weight"])
    assert adapt(network=["--checkpoint", str(checkpoint), "--config", "config.yaml"]) == 0
    far = "far/away/from/every/run"  # whose config.yaml is looked for up to three folders higher
    (project / far).mkdir(parents=True)
    checkpoint.rename(project / far / "alone.ckpt")
    alone = ["--checkpoint", f"{far}/alone.ckpt"]
    assert f"the network of {far}/alone.ckpt is unknown" in fails(capsys, network=alone, output="out2")
    assert adapt(network=[*alone, "--config", "config.yaml"], output="out2") == 0
    config = yaml.safe_load((project / "config.yaml").read_text())
    config["model"]["init_args"]["network"]["init_args"]["width"] = 5
    (project / "other.yaml").write_text(yaml.safe_dump(config))
    line = fails(capsys, network=[*alone, "--config", "other.yaml"], output="out3")
    assert f"other.yaml and {far}/alone.ckpt do not make a network" in line
    assert adapt(network=["--network", "own.MyNet", "--network-args", '{"width": 3}'], output="out4") == 0
    assert "own.MyNet has the weights that it was built with" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("--window 9 --stride 4", 9 / 4 / 2),  # the averages overlap
        ("--shutter 1/50 --fps 30000/1001", 30000 / 1001 / 50 / 2),
        ("--shutter 0.02 --fps 25", 0.25),
        ("--exposure 1.5", 1.5),
    ],
)
def test_ways_to_say_the_exposure(work, monkeypatch, time, expected):
    seen = []
    monkeypatch.setattr(
        "reblurkit.cli.adapt_video.run_adapt_video", lambda *words, **_: seen.append(words[3].exposure) or []
    )
    assert adapt(time=time.split()) == 0
    assert seen == [pytest.approx(expected)]


def test_averages_that_overlap_are_adapted_to(work):
    assert adapt(time=["--window", "9", "--stride", "4"]) == 0
    assert (work / "out" / "network.pt").is_file()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"data": []}, "leads to degenerate solutions, as many images blur to the observed one"),
        ({"data": ["--labelled", "pairs", "--unsupervised"]}, "leave out --labelled"),
        ({"data": ["--labelled", "nowhere"]}, "no data set folder nowhere"),
        ({"time": []}, "say how long the exposure is, in one way"),
        ({"time": ["--exposure", "1", "--fps", "24"]}, "say how long the exposure is, in one way"),
        ({"time": ["--fps", "24"]}, "either --window and --stride (synthetic blur) or --shutter and --fps"),
        ({"time": ["--exposure", "-1"]}, "--exposure, half of the time the shutter is open"),
        ({"time": ["--exposure", "nan"]}, "must be above 0 and at most 2"),
        ({"time": ["--window", "9", "--stride", "2"]}, "--window 9 and --stride 2 make an --exposure of 2.25;"),
        ({"time": ["--shutter", "50", "--fps", "25"]}, "--shutter 50 and --fps 25 make an --exposure of 625;"),
        ({"time": ["--shutter", "1/0", "--fps", "25"]}, "must be a number or a fraction, such as 0.02 or 1/50"),
        ({"time": ["--shutter", "1/50", "--fps", "x"]}, "argument --fps: must be a number or a fraction"),
        ({"network": ["--weights", "unet.pt"]}, "give the network in one of three ways"),
        ({"network": ["--model", "unet"]}, "--model unet has random weights"),
        ({"network": ["--model", "une", "--weights", "unet.pt"]}, "unknown network 'une'"),
        ({"network": ["--network", "nowhere.Net"]}, "No module named 'nowhere'"),
        ({"network": ["--network", "reblurkit.models.UNet", "--network-args", "{"]}, "--network-args must be JSON"),
        ({"network": ["--network", "reblurkit.models.UNet", "--network-args", '{"a": 1}']}, "cannot be built with"),
        ({"network": ["--network", "builtins.dict"]}, "must be a class of torch.nn.Module"),
        ({"network": ["--checkpoint", "none.ckpt"]}, "none.ckpt cannot be read"),
        ({"network": ["--checkpoint", "unet.pt", "--weights", "unet.pt"]}, "brings its own weights"),
        ({"clips": ["nowhere"]}, "no file or folder nowhere"),
        ({"clips": ["clip", "clip"]}, "the name 'clip' is taken"),
        ({"output": "pairs"}, "the output folder pairs must be new or empty"),
    ],
)
def test_bad_use(work, capsys, options, expected):
    assert expected in fails(capsys, **options)
    assert not (work / "out").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--blur dense", "--blur must be one of kernel, line, warp"),
        ("--steps 0", "--steps must be at least 1"),
        ("--flow raft", "--flow must be one of raft-small, raft-large, tvl1"),
        ("--flow raft_small", "but is 'raft_small'; did you mean raft-small"),
        ("--blur kernl", "but is 'kernl'; did you mean kernel?"),
        ("--frames 4", "--frames must be 3, or 2 for steady motion"),
        ("--weight -1", "--weight must be at least 0"),
        ("--weight nan", "--weight must be at least 0"),
        ("--lr inf", "--lr must be a finite number greater than 0"),
        ("--config config.txt", "--config says what the network of a --checkpoint is"),
    ],
)
def test_bad_options(work, capsys, words, expected):
    assert expected in fails(capsys, *words.split())
    assert not Path("out").exists()


def test_a_training_that_fails_leaves_nothing_and_the_next_runs(work, capsys, monkeypatch):
    def fail(*_):
        raise NonFiniteLossError("the loss is nan")

    with monkeypatch.context() as patch:
        patch.setattr(FlowReblurFinetuneCallback, "on_train_start", fail)
        assert "the loss is nan" in fails(capsys)
    assert not (work / "out").exists()
    assert adapt() == 0


def test_clips_that_are_too_short_or_of_several_sizes(work, capsys):
    move(work / "short", frames=2)
    assert "has 2 blurry frames; frames=2 takes pairs" in fails(capsys, clips=("short",))
    save(work / "clip" / "frame_9.png", (40, 50))
    assert "all frames of a video must have one size" in fails(capsys)


def test_a_clip_of_one_still_image_leaves_the_identity_alone(work):
    (work / "still").mkdir()
    for index in range(3):
        save(work / "still" / f"{index}.png", (40, 40))
    assert adapt(clips=("still",), data=["--unsupervised"]) == 0
    image = read_image("out/still/1.png")
    assert image.isfinite().all()
    loss = (work / "out" / "log" / "metrics.csv").read_text()
    assert "nan" not in loss


def test_draws_take_every_item_of_every_source_anew():
    class Source:
        def __init__(self, name, length):
            self.name, self.length = name, length

        def __len__(self):
            return self.length

        def __getitem__(self, draw):
            return self.name, draw.item, draw.epoch

    draws = [_Draws([Source("a", 2), Source("b", 1)], 7, seed=0)[index] for index in range(7)]
    for epoch in (0, 1):
        assert sorted(draws[3 * epoch : 3 * epoch + 3]) == [("a", 0, epoch), ("a", 1, epoch), ("b", 0, epoch)]
    assert draws[6][2] == 2


def test_clips_of_several_lengths_keep_their_centres():
    clips = [{"frames": torch.arange(float(length)).view(-1, 1, 1, 1)} for length in (7, 3)]
    assert _same_length(clips).flatten(1).tolist() == [[2, 3, 4], [0, 1, 2]]


def test_deblurring_in_chunks_is_deblurring_all():
    class Video:
        def __init__(self):
            self.frames = torch.rand(9, 3, 12, 20)

        def __len__(self):
            return 9

        def read(self, start, stop):
            return self.frames[start:stop]

    video, network = Video(), create_model("dbn", width=4)

    def deblurred(start, stop):
        return [image for _, image in Deblurrer(network).each_frame(video, range(start, stop))]

    whole = deblurred(0, 9)
    parts = [image for start in (0, 4, 8) for image in deblurred(start, min(start + 4, 9))]
    torch.testing.assert_close(torch.stack(whole), torch.stack(parts))
    assert whole[0].shape == (3, 12, 20)
    with torch.no_grad():
        expected = FullSize(network.eval())(video.frames[None, 2:7])[0]
    torch.testing.assert_close(whole[4], expected.clamp(0, 1))


def test_saliency_before_and_after(work, capsys):
    assert adapt("--saliency", "10", "10", "8", "8") == 0
    picture = np.asarray(Image.open("out/saliency.png"))
    assert picture.std() > 1
    assert "inside the image of 40 x 48" in fails(capsys, "--saliency", "38", "0", "8", "8", output="out2")
    assert not Path("out2").exists()


def test_large_frames_are_deblurred_in_tiles(work):
    assert adapt("--tile", "40") == 0
    network = UNet(**SMALL)
    network.load_state_dict(torch.load("out/network.pt", weights_only=True))
    blurry, written = (read_image(f"{folder}/frame_10.png") for folder in ("clip", "out/clip"))
    with torch.no_grad():
        tiled, whole = (FullSize(network, tile=tile)(blurry[None])[0].clamp(0, 1) for tile in (40, None))
    torch.testing.assert_close(written, tiled, rtol=0, atol=0.6 / 255)
    torch.testing.assert_close(whole, tiled)
    assert adapt("--tile", "3", output="out3") == 2
    assert not Path("out3").exists()


def test_ctrl_c_is_told_and_writes_no_frames(work, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(FlowReblurFinetuneCallback, "on_train_start", interrupted)
    monkeypatch.setattr("signal.signal", lambda *_: None)  # Lightning ignores a second Ctrl-C from then on
    assert adapt() == 130
    assert capsys.readouterr().err.splitlines()[-1] == "reblurkit: interrupted"
    assert not Path("out").exists()


def test_a_damaged_frame_leaves_the_other_clips(work, capsys):
    move(work / "damaged")
    file = work / "damaged" / "frame_9.png"
    file.write_bytes(file.read_bytes()[:-400])
    assert adapt(clips=("clip", "damaged")) == 1
    assert "reblurkit: failed: damaged: " in capsys.readouterr().err
    assert len(list((work / "out" / "clip").iterdir())) == 4
    assert not (work / "out" / "damaged").exists()


def test_a_video_beside_its_frames_and_a_file_that_is_cut_off(work, capsys):
    av = pytest.importorskip("av")
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 48, 3), dtype=np.uint8)
    content = encoded(Path("film.mkv"), "libx264", noise, pixels="yuv420p").read_bytes()
    Path("film.mkv").write_bytes(content[: len(content) // 2])
    with pytest.warns(UserWarning, match="film.mkv has"):
        assert adapt("--video", clips=("film.mkv", "clip"), output="out") == 1
    assert "failed: film.mkv: video film.mkv has" in capsys.readouterr().err
    count = len(list(Path("out/film").iterdir()))
    assert 8 < count < 25
    with av.open("out/film.mp4") as container:
        assert sum(1 for _ in container.decode(video=0)) == count
    assert not Path("out/clip.mp4").exists(), "frames say no times"


def test_the_folder_one_is_in_is_a_clip_with_a_name(work, monkeypatch):
    monkeypatch.chdir(work / "clip")
    network = [*UNET[:-1], "../unet.pt"]
    assert adapt(clips=(".",), output="../out", network=network, data=("--labelled", "../pairs")) == 0
    assert sorted(path.name for path in (work / "out" / "clip").iterdir())[0] == "frame_10.png"
    (work / "clip" / "sub").mkdir()
    monkeypatch.chdir(work / "clip" / "sub")
    before = (work / "clip" / "frame_8.png").read_bytes()
    network, data = [*UNET[:-1], "../../unet.pt"], ("--labelled", "../../pairs")
    assert adapt(clips=("..",), output="../../out2", network=network, data=data) == 0
    assert (work / "clip" / "frame_8.png").read_bytes() == before
    assert len(list((work / "out2" / "clip").iterdir())) == 4


def test_a_checkpoint_with_broken_weights(project, capsys):  # noqa: F811
    move(project / "clip")
    assert main(["fit", "--config", "config.yaml", "--trainer.limit_val_batches", "0"]) == 0
    (checkpoint,) = project.glob("run/**/*.ckpt")
    content = torch.load(checkpoint, weights_only=True)
    content["state_dict"]["network.layers.0.weight"].fill_(torch.nan)
    torch.save(content, checkpoint)
    line = fails(capsys, network=["--checkpoint", str(checkpoint), "--config", "config.yaml"])
    assert "holds NaN or infinite weights, the first in network.layers.0.weight" in line


def test_the_real_grey_frames(work, shared_data):
    assert adapt(clips=(str(shared_data / "sequences" / "selfdeblur_real"),)) == 0
    written = sorted((work / "out" / "selfdeblur_real").iterdir())
    assert len(written) == 7
    assert np.asarray(Image.open(written[0])).shape == (480, 752, 3)


@pytest.mark.parametrize("writer", ["save_picture", "VideoFinetuning.run"])
def test_a_full_disk_is_told_in_a_line(work, capsys, monkeypatch, writer):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(f"reblurkit.cli.adapt_video.{writer}", full)
    assert "cannot use the disk: No space left on device" in fails(capsys)
