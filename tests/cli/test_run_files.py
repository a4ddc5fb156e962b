"""What a run reads, writes and leaves: no given file is overwritten, and a checkpoint needs no other file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import lightning.pytorch as L
import pytest
import torch
import yaml
from lightning.pytorch import loggers
from lightning.pytorch.plugins.io import AsyncCheckpointIO

from reblurkit.cli import main
from reblurkit.cli.run_folder import run_folders
from reblurkit.core.file_locks import MARK
from reblurkit.core.files import nothing_left_of_failures
from reblurkit.data import write_image
from reblurkit.metrics import fit_pristine
from reblurkit.models import UNet
from reblurkit.plugins import WholeCheckpointIO
from reblurkit.plugins.whole_checkpoints import use_whole_checkpoints
from tests.cli.test_blur2blur import configuration
from tests.cli.test_blur2blur import project as camera  # noqa: F401  # a fixture
from tests.core.test_files import no_room

NETWORK = {"class_path": "UNet", "init_args": {"widths": [4, 4, 4], "blocks": 0}}
REBLUR = {"class_path": "ReblurNet", "init_args": {"width": 4}}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for split in ("train", "val", "test"):
        for index in range(2):
            for kind in ("blur", "sharp"):
                write_image(torch.rand(3, 24, 24), tmp_path / "pairs" / split / kind / f"{index}.png")
    configure(tmp_path / "config.yaml")
    return tmp_path


def configure(path, task="DeblurTask", trainer=None, **model):
    config = {
        "model": {"class_path": task, "init_args": {"network": NETWORK, "reblur_net": REBLUR, **model}},
        "data": {
            "class_path": "PairedDataModule",
            "init_args": {"root": str(path.parent / "pairs"), "crop": 16, "batch_size": 2, "num_workers": 0},
        },
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False,
                    "logger": False, **(trainer or {})},
    }  # fmt: skip
    path.write_text("# mine\n" + yaml.safe_dump(config))


def run(*words):
    return main([*map(str, words)])


LOGGERS = {
    "none": {"logger": False},
    "csv": {"logger": {"class_path": "CSVLogger", "init_args": {"save_dir": ".", "name": "", "version": ""}}},
}


@pytest.mark.parametrize("logger", LOGGERS)
def test_a_given_configuration_is_never_overwritten(folder, capsys, logger):
    configure(folder / "config.yaml", trainer=LOGGERS[logger])
    given = (folder / "config.yaml").read_text()
    assert run("fit", "--config", "config.yaml", "--model.network.blocks", 1) == 0
    (checkpoint,) = folder.rglob("*.ckpt")
    assert "config.yaml is there already and stays; the configuration of this run: " in capsys.readouterr().err
    for command in ("validate", "test", "predict"):
        assert run(command, "--config", "config.yaml", "--model.network.blocks", 1, "--ckpt_path", checkpoint) == 0
        assert (folder / "config.yaml").read_text() == given
    # the checkpoint knows which of the files is its own: that with the option of the command line
    own = yaml.safe_load((folder / "config-2.yaml").read_text())["model"]["init_args"]["network"]
    assert own["init_args"]["blocks"] == 1
    assert run("deblur", "pairs/test/blur", "--output", "out", "--checkpoint", checkpoint, "--adapt", 1) == 0


def test_a_configuration_that_a_logger_would_overwrite_is_refused(folder, capsys):
    configure(folder / "hparams.yaml", trainer=LOGGERS["csv"])
    given = (folder / "hparams.yaml").read_text()
    assert run("fit", "--config", "hparams.yaml") == 2
    assert "the logger would overwrite the configuration hparams.yaml: rename that file" in capsys.readouterr().err
    assert (folder / "hparams.yaml").read_text() == given


@pytest.mark.parametrize("task", ["DeblurTask", "ReblurTask"])
def test_a_checkpoint_does_not_need_the_weights_that_training_started_from(folder, task, monkeypatch):
    torch.save(UNet(0, (4, 4, 4)).state_dict(), folder / "start.pth")
    configure(folder / "config.yaml", task, weights="start.pth")
    assert run("fit", "--config", "config.yaml", "--trainer.default_root_dir", folder / "run") == 0
    (checkpoint,) = folder.rglob("*.ckpt")
    (folder / "start.pth").unlink()
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    words = ["--config", folder / "config.yaml", "--ckpt_path", checkpoint]
    assert run("deblur", folder / "pairs" / "test" / "blur", "--output", "out", "--checkpoint", checkpoint) == 0
    for command in ("validate", "test", "predict"):
        assert run(command, *words) == 0
    assert run("fit", *words, "--trainer.max_epochs", 2) == 0
    assert run("fit", "--config", folder / "config.yaml") == 2  # a new training does need it


def test_a_translators_checkpoint_needs_no_file_of_its_helpers(camera, capsys):  # noqa: F811
    for name in ("trainA", "trainB", "trainC", "trainD", "testA", "testB"):
        for index in range(1 if name.startswith("test") else 2):
            write_image(torch.rand(3, 258, 263) * 0.5 + 0.25, camera / "data" / name / f"{index}.png")
    fit_pristine(torch.rand(2, 3, 192, 192), sharpness=0.0).save(camera / "pristine.npz")
    configuration(camera, score={"class_path": "NIQE", "init_args": {"pristine": "pristine.npz"}})
    assert run("fit", "--config", "config.yaml") == 0
    (checkpoint,) = camera.rglob("last.ckpt")
    words = ["--config", "config.yaml", "--ckpt_path", checkpoint]
    capsys.readouterr()
    assert run("test", *words) == 0
    before = capsys.readouterr().out
    helpers = ["mine.pth", "wizard.pth", "pristine.npz"]
    (camera / "away").mkdir()
    for name in helpers:
        shutil.move(camera / name, camera / "away" / name)
    assert run("test", *words) == 0
    assert capsys.readouterr().out == before
    assert run("fit", *words, "--trainer.max_epochs", 2) == 0
    deblur = ["deblur", "data/testA", "--network", "mine.MyNet", "--weights", "away/mine.pth", "--output", "out"]
    assert run(*deblur, "--translator", checkpoint) == 0
    # an old checkpoint, which keeps no files, translates as well; to measure, it needs them
    saved = torch.load(checkpoint, weights_only=True)
    del saved["reblurkit"]["files"]
    torch.save(saved, checkpoint)
    assert run(*deblur, "--translator", checkpoint, "--existing", "overwrite") == 0
    assert run("test", *words) == 2
    assert "mine.pth" in capsys.readouterr().err


def test_checkpoints_that_lie_elsewhere_have_their_configuration_beside_them(folder, capsys):
    keep = {"class_path": "ModelCheckpoint", "init_args": {"dirpath": "kept"}}
    other = {"class_path": "ModelCheckpoint", "init_args": {"dirpath": "logs/runs/best", "every_n_train_steps": 1}}
    inside = {"class_path": "ModelCheckpoint", "init_args": {"dirpath": "logs/run/mine", "monitor": "val/psnr"}}
    logger = {"class_path": "CSVLogger", "init_args": {"save_dir": "logs", "name": "", "version": "run"}}
    for blocks in (0, 1):
        configure(folder / "mine.yaml", trainer={"logger": logger, "callbacks": [keep, other, inside]})
        assert run("fit", "--config", "mine.yaml", "--model.network.blocks", blocks) == 0
        said = capsys.readouterr().err
        assert "is not empty" not in said or blocks  # Lightning's warning, of the second run
        shutil.rmtree("logs/run")
    assert sorted(path.name for path in (folder / "kept").glob("*.yaml")) == ["config-2.yaml", "config.yaml"]
    assert sorted(path.name for path in (folder / "logs/runs/best").glob("*.yaml")) == ["config-2.yaml", "config.yaml"]
    assert "kept/config.yaml is there already and stays; the configuration of this run: logs/run/config-2.yaml" in said
    first, second = sorted((folder / "kept").glob("*.ckpt"), key=lambda path: path.stat().st_mtime)
    for path, blocks in ((first, 0), (second, 1)):  # each by its own: networks differ
        assert run("deblur", "pairs/test/blur", "--output", f"out{blocks}", "--checkpoint", path, "--adapt", 1) == 0
        words = ["--config", "mine.yaml", "--model.network.blocks", blocks]
        assert run("test", *words, "--ckpt_path", path) == 0


def test_a_run_that_fails_at_once_leaves_nothing_beside_checkpoints(folder):
    keep = ["--trainer.callbacks", "ModelCheckpoint", "--trainer.callbacks.dirpath"]
    before = sorted(folder.rglob("*"))
    nan = ["--model.network", "torch.nn.Identity", "--model.reblur_net", "null"]  # fails in the first step
    assert run("fit", "--config", "config.yaml", *keep, "kept/here", *nan) == 2
    assert sorted(folder.rglob("*")) == before
    (folder / "kept").mkdir()
    assert run("fit", "--config", "config.yaml", *keep, "kept", *nan) == 2
    assert sorted(folder.rglob("*")) == sorted([*before, folder / "kept"])


def test_a_run_that_fails_at_once_leaves_nothing(folder, capsys):
    before = sorted(folder.rglob("*"))
    logger = ["--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "new/logs"]
    for words in (["--data.root", "nowhere"], ["--data.crop", 999], ["--model.weights", "none.pth"]):
        for command in ("fit", "test"):
            if words[0] == "--data.crop" and command == "test":
                continue
            assert run(command, "--config", "config.yaml", *logger, *words) == 2
            assert sorted(folder.rglob("*")) == before
    (folder / "kept").mkdir()
    Path("kept/notes.txt").write_text("mine")
    assert run("fit", "--config", "config.yaml", "--trainer.default_root_dir", "kept", "--data.root", "nowhere") == 2
    assert Path("kept/notes.txt").exists()


def last(folder):
    (path,) = folder.rglob("*.ckpt")
    return path, torch.load(path, weights_only=True)


def rates(saved):
    auxiliary = saved["callbacks"]["AuxiliaryOptimizer"]["reblur"]["optimizer"]
    return [each["param_groups"][0]["lr"] for each in (saved["optimizer_states"][0], auxiliary)]


def test_a_resumed_run_follows_what_is_asked_for_anew_and_says_so(folder, capsys):
    def fit(name, *words):
        status = run("fit", "--config", "config.yaml", "--trainer.default_root_dir", name, *words)
        lines = capsys.readouterr().err.splitlines()
        (line,) = [line for line in lines if line.startswith("reblurkit: resumed")] or [""]
        return status, line

    assert fit("short", "--trainer.max_epochs", 4) == (0, "")
    path, saved = last(folder / "short")
    assert rates(saved) == [1.25e-5] * 2
    status, line = fit("long", "--trainer.max_epochs", 8, "--ckpt_path", path)
    assert status == 0
    assert line == (
        f"reblurkit: resumed {path} at epoch 4, step 4; kept: weights, optimizers, place in schedules and data; "
        "new: max_epochs 4 -> 8"
    )
    _, longer = last(folder / "long")
    assert rates(longer) == [1.25e-5] * 2  # at the end; after the fifth of eight steps it was the half
    assert longer["global_step"] == 8
    # a new learning rate is the schedule's from there on: the fifth of eight steps is after one halving
    status, line = fit("faster", "--trainer.max_epochs", 8, "--trainer.max_steps", 5, "--ckpt_path", path,
                       "--model.optimizer=Adam", "--model.optimizer.lr=0.0004")  # fmt: skip
    assert line.endswith("new: max_epochs 4 -> 8, max_steps -1 -> 5, lr 0.0001 -> 0.0004")
    assert rates(last(folder / "faster")[1]) == [5e-5] * 2  # three halvings of five steps
    status, line = fit("other", "--trainer.max_epochs", 8, "--ckpt_path", path, "--model.optimizer=torch.optim.SGD",
                       "--model.optimizer.lr=0.001", "--model.optimizer.momentum=0.9")  # fmt: skip
    assert status == 0
    assert "SGD, without moments, instead of Adam" in line
    assert rates(last(folder / "other")[1]) == [1.25e-4] * 2


def test_a_resumed_run_that_has_all_that_is_asked_for_is_told_before_anything_is_built(folder, capsys, monkeypatch):
    fit = ["fit", "--config", "config.yaml", "--trainer.default_root_dir", "run", "--trainer.max_epochs"]
    assert run(*fit, 2) == 0
    path, _ = last(folder / "run")
    before = sorted(folder.rglob("*"))
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr("reblurkit.PairedDataModule.setup", lambda *_: pytest.fail("data were prepared"))
        for limit in (["1"], ["-1", "--trainer.max_steps", "1"]):
            name, unit = ("max_steps", "steps") if len(limit) > 1 else ("max_epochs", "epochs")
            assert run(*fit, *limit, "--ckpt_path", path) == 2
            assert capsys.readouterr().err == (
                f"reblurkit: error: {path} has 2 {unit}, and --trainer.{name} asks for 1 in all: give more than 2 to "
                "go on, or begin anew from its weights by --start_from\n"
            )
        for limit in (["2"], ["5", "--trainer.max_steps", "2"]):  # as where a queue starts what has ended again
            assert run(*fit, *limit, "--ckpt_path", path) == 0
            assert capsys.readouterr().err.endswith(" asks for 2 in all: nothing is left to do; give more to go on\n")
    assert sorted(folder.rglob("*")) == before
    kept = Path(path).parent / "last.ckpt"
    kept.write_bytes(Path(path).read_bytes())
    keep = {"class_path": "ModelCheckpoint", "init_args": {"dirpath": str(kept.parent), "save_last": True}}
    configure(folder / "config.yaml", trainer={"callbacks": [keep]})
    assert run(*fit, 1, "--ckpt_path", "last") == 2
    assert "last.ckpt has 2 epochs, and --trainer.max_epochs asks for 1 in all" in capsys.readouterr().err


def test_a_warm_start_takes_all_weights_and_nothing_else(folder, capsys):
    fit = ["fit", "--config", "config.yaml"]
    assert run(*fit, "--trainer.max_epochs", 2, "--trainer.default_root_dir", "first") == 0
    path, saved = last(folder / "first")
    still = ["--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=0", "--start_from", path]
    capsys.readouterr()
    assert run(*fit, *still, "--trainer.default_root_dir", "warm", "--model.discriminator=PatchGAN",
               "--model.discriminator.width=4", "--model.discriminator.layers=1") == 0  # fmt: skip
    line = (
        f"started from the weights in {path}: network, reblur; new: discriminator; optimizers and schedules begin anew"
    )
    assert line in capsys.readouterr().err
    _, warm = last(folder / "warm")
    assert warm["global_step"] == 1
    for name, value in saved["state_dict"].items():
        assert torch.equal(warm["state_dict"][name], value), name
    assert run(*fit, *still, "--model.network.blocks", 1) == 2
    assert "does not fit the networks: network." in capsys.readouterr().err
    assert run(*fit, *still, "--ckpt_path", path) == 2
    assert run("test", "--config", "config.yaml", "--start_from", path) == 2
    assert "--start_from begins a new `fit`" in capsys.readouterr().err
    weights = {key: saved[key] for key in ("state_dict", "epoch", "global_step", "pytorch-lightning_version")}
    torch.save(weights, "weights.ckpt")
    assert run(*fit, "--ckpt_path", "weights.ckpt") == 2
    assert "weights.ckpt holds weights only and cannot be resumed; give it by --start_from" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["fit", "--config", "none.yaml"], "--config none.yaml: there is no such file"),
        (["test", "--config=none.yaml"], "--config none.yaml: there is no such file"),
        (["fit", "--ckpt_path", "none.ckpt"], "none.ckpt cannot be read as a file of weights: No such file"),
        (["fit", "--start_from=none.ckpt"], "none.ckpt cannot be read as a file of weights: No such file"),
        (["deblur", "a.png", "b.png", "--output", "out"], "no file or folder a.png (and 1 more failed)"),
        (["deblur", ".", "--output", "out", "--checkpoint", "none.ckpt"], "none.ckpt cannot be read"),
        (["deblur", ".", "--output", "out", "--translator", "none.ckpt"], "none.ckpt cannot be read"),
        (["adapt-video", "none.mp4", "--output", "out"], "no file or folder none.mp4"),
    ],
)
def test_missing_files_are_named_before_torch_is_imported(tmp_path, words, expected):
    code = f"import sys; from reblurkit.cli import main; status = main({words}); print(status, 'torch' in sys.modules)"
    path = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["2", "False"]
    assert expected in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["fit", "--config", "there/confg.yaml"], "there is no such file; did you mean there/config.yaml?"),
        (["fit", "--ckpt_path", "tere/best.ckpt"], "No such file or directory; did you mean there/best.ckpt?"),
        (["fit", "--start_from", "there/bst.ckpt"], "No such file or directory; did you mean there/best.ckpt?"),
        (["deblur", "there", "--output", "out", "--checkpoint", "there/best.ckp"], "did you mean there/best.ckpt?"),
        (["deblur", "there", "--output", "out", "--weights", "there/best.pt"], "did you mean there/best.ckpt?"),
        (["deblur", "tere", "--output", "out"], "no file or folder tere; did you mean there?"),
        (["report", "tere"], "no run folder tere; did you mean there?"),
    ],
)
def test_a_mistyped_file_is_told_from_a_missing_one(tmp_path, monkeypatch, capsys, words, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "config.yaml").touch()
    (tmp_path / "there" / "best.ckpt").touch()
    assert main(words) == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(("hook", "under_way"), [("on_train_start", False), ("on_train_epoch_end", True)])
def test_an_interrupted_training_ends_in_one_line(folder, capsys, monkeypatch, hook, under_way):
    (folder / "impatient.py").write_text(
        "import lightning.pytorch as L\n"
        "class Impatient(L.Callback):\n"
        f"    def {hook}(self, *_):\n"
        "        raise KeyboardInterrupt\n"
    )
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "impatient", raising=False)
    monkeypatch.setattr("signal.signal", lambda *_: None)  # Lightning ignores a second Ctrl-C from then on
    words = ["--trainer.callbacks", "impatient.Impatient", "--trainer.default_root_dir", "run"]
    assert run("fit", "--config", "config.yaml", *words) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "reblurkit: interrupted"
    assert (folder / "run").exists() == (folder / "run" / "config.yaml").exists() == under_way


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("is_there", [False, True])
def test_a_folder_is_as_it_was_where_work_in_it_fails(tmp_path, error, is_there):
    folder = tmp_path / "new" / "out"
    if is_there:
        folder.mkdir(parents=True)

    def work():
        (folder / "log").mkdir(parents=True)
        (folder / "log" / "metrics.csv").write_text("x")
        (folder / "network.pt").write_text("x")
        raise error

    with pytest.raises(error), nothing_left_of_failures(folder):
        work()
    assert sorted(tmp_path.rglob("*")) == ([tmp_path / "new", folder] if is_there else [])
    with nothing_left_of_failures(folder):
        write_image(torch.rand(3, 4, 4), folder / "image.png")
    assert (folder / "image.png").exists()


def test_a_torn_checkpoint_is_named_and_the_newest_whole_one_taken(folder, capsys):
    keep = {"dirpath": "kept", "every_n_train_steps": 1, "save_top_k": -1, "save_last": True}
    callbacks = [{"class_path": "ModelCheckpoint", "init_args": keep}]
    configure(folder / "config.yaml", trainer={"callbacks": callbacks, "max_epochs": 2})
    assert run("fit", "--config", "config.yaml") == 0
    last = folder / "kept" / "last.ckpt"
    whole = last.read_bytes()
    last.write_bytes(whole[: len(whole) // 2])
    orphan = folder / "kept" / f"{MARK}0123.ckpt"
    orphan.write_bytes(whole[:100])
    capsys.readouterr()
    assert run("fit", "--config", "config.yaml", "--ckpt_path", last, "--trainer.max_epochs", 3) == 0
    said = capsys.readouterr().err
    (line,) = [line for line in said.splitlines() if "newest whole one" in line]
    assert line.startswith(f"reblurkit: {last} cannot be read")
    assert line.endswith(
        "going on from the newest whole one beside it, " + str(folder / "kept" / "epoch=1-step=2.ckpt")
    )
    assert "at epoch 2, step 2" in said
    assert not orphan.exists()
    # of which there is none: the one that was asked for is named
    for path in (folder / "kept").glob("*.ckpt"):
        path.write_bytes(whole[:1000])
    assert run("fit", "--config", "config.yaml", "--ckpt_path", last) == 2
    assert f"reblurkit: error: {last} cannot be read" in capsys.readouterr().err
    assert run("test", "--config", "config.yaml", "--ckpt_path", last) == 2


@pytest.mark.parametrize("word", ["last", "hpc"])
def test_a_torn_checkpoint_that_lightning_finds_is_named_and_the_newest_whole_one_taken(folder, capsys, word):
    kept, name = (folder / "kept", "last") if word == "last" else (folder / "root", "hpc_ckpt_2")
    keep = {"dirpath": str(kept), "every_n_train_steps": 1, "save_top_k": -1, "save_last": True}
    callbacks = [{"class_path": "ModelCheckpoint", "init_args": keep}]
    trainer = {"callbacks": callbacks, "max_epochs": 2, "default_root_dir": str(folder / "root")}
    configure(folder / "config.yaml", trainer=trainer)
    assert run("fit", "--config", "config.yaml") == 0
    whole = (kept / "epoch=1-step=2.ckpt").read_bytes()
    torn = kept / f"{name}.ckpt"
    torn.write_bytes(whole[: len(whole) // 2])
    capsys.readouterr()
    assert run("fit", "--config", "config.yaml", "--ckpt_path", word, "--trainer.max_epochs", 3) == 0
    said = capsys.readouterr().err
    (line,) = [line for line in said.splitlines() if "newest whole one" in line]
    found = kept / ("epoch=1-step=2.ckpt" if word == "last" else "last.ckpt")
    assert line.startswith(f"reblurkit: {torn} cannot be read")
    assert line.endswith(f"going on from the newest whole one beside it, {found}")
    assert f"resumed {found} at epoch 2, step 2" in said
    for path in kept.glob("*.ckpt"):
        path.write_bytes(whole[:1000])
    assert run("fit", "--config", "config.yaml", "--ckpt_path", word) == 2
    assert f"reblurkit: error: {torn} cannot be read" in capsys.readouterr().err


def test_a_checkpoint_that_does_not_fit_on_the_disk_is_told_and_the_earlier_one_stays(folder, capsys):
    keep = {"dirpath": "kept", "every_n_train_steps": 1, "filename": "newest", "enable_version_counter": False}
    callbacks = [{"class_path": "ModelCheckpoint", "init_args": keep}]
    configure(folder / "config.yaml", trainer={"callbacks": callbacks})
    assert run("fit", "--config", "config.yaml") == 0
    before = (folder / "kept" / "newest.ckpt").read_bytes()
    capsys.readouterr()
    with no_room(len(before) // 2):
        assert run("fit", "--config", "config.yaml") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "kept/newest.ckpt cannot be written: File too large; the earlier file is as it was" in line
    assert (folder / "kept" / "newest.ckpt").read_bytes() == before
    assert not list(folder.rglob(f"{MARK}*"))


@pytest.mark.parametrize("logger", ["CSVLogger", "TensorBoardLogger"])
def test_two_trainings_at_once_take_two_versions(tmp_path, logger):
    if logger == "TensorBoardLogger":
        pytest.importorskip("tensorboard")
    kind = getattr(loggers, logger)
    first, second = (L.Trainer(accelerator="cpu", logger=kind(str(tmp_path))) for _ in range(2))
    assert second.logger.version == 0  # both have looked; none has made its folder
    second.logger._version = None
    looked, real = [], type(second.logger)._get_next_version

    class Late(kind):
        def _get_next_version(self):
            looked.append(real(self))
            if len(looked) == 1:
                run_folders(first)  # in this very moment the other one begins
            return looked[-1]

    second.logger.__class__ = Late
    run_folders(second)
    assert looked == [0, 1]
    assert [Path(each.log_dir).name for each in (first, second)] == ["version_0", "version_1"]
    assert all(Path(each.log_dir).is_dir() for each in (first, second))


@pytest.mark.parametrize("place", ["nowhere", "out/lightning_logs/version_0"])
def test_a_run_folder_that_cannot_be_made_is_told(folder, capsys, place):
    """Lightning proposes the same version again and again."""
    if place == "nowhere":
        (folder / "out").symlink_to(place)
    else:
        (folder / place).parent.mkdir(parents=True)
        (folder / place).touch()
    configure(folder / "config.yaml", trainer={"logger": True})
    assert run("validate", "--config", "config.yaml", "--trainer.default_root_dir", "out") == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert "cannot use" in line
    assert "File exists" in line


def test_what_an_earlier_version_was_writing_is_swept(tmp_path):
    left = [tmp_path / "lightning_logs" / "version_0" / name for name in (f"{MARK}0.yaml", f"images/{MARK}1.png")]
    left[1].parent.mkdir(parents=True)
    for path in left:
        path.write_text("")
    trainer = L.Trainer(accelerator="cpu", logger=loggers.CSVLogger(str(tmp_path)))
    run_folders(trainer)
    assert Path(trainer.log_dir).name == "version_1"
    assert not any(path.exists() for path in left)


def test_a_trainer_of_ones_own_writes_whole_checkpoints_if_told(tmp_path, monkeypatch):
    trainer = L.Trainer(accelerator="cpu", plugins=WholeCheckpointIO(), logger=False, default_root_dir=tmp_path)
    monkeypatch.setattr(tempfile, "mkstemp", None)  # by way of which Lightning writes
    trainer.strategy.checkpoint_io.save_checkpoint({"state_dict": {}}, tmp_path / "a" / "last.ckpt")
    assert torch.load(tmp_path / "a" / "last.ckpt", weights_only=True) == {"state_dict": {}}
    trainer.strategy.checkpoint_io.save_checkpoint({}, "memory://a/last.ckpt")  # left to Lightning
    plain = L.Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path)
    mine = AsyncCheckpointIO()
    for checkpoint_io in (plain.strategy.checkpoint_io, mine):
        plain.strategy.checkpoint_io = checkpoint_io
        use_whole_checkpoints(plain)
        assert isinstance(plain.strategy.checkpoint_io, WholeCheckpointIO) == (checkpoint_io is not mine)
