"""Mistyped and missing words: the line says which, what may have been meant, and how it is written here."""

from __future__ import annotations

import json
import shlex

import pytest
import torch
import yaml
from jsonargparse import Namespace

from reblurkit.cli import main
from reblurkit.cli.commands import command_parser
from reblurkit.cli.usage import with_flags
from reblurkit.cli.words import NEGATIVE_NUMBER
from reblurkit.errors import ArgumentError
from tests.cli.test_main import fails, project, run, save  # noqa: F401  # a fixture


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--trainer.max_epoch 3", "unknown option --trainer.max_epoch; did you mean --trainer.max_epochs"),
        ("--modle DeblurTask", "unknown option --modle; did you mean --model"),
        ("--model DeblurTsk", "--model: unknown class DeblurTsk; did you mean DeblurTask"),
        ("--model.network UNt", "unknown class UNt; did you mean UNet"),
        ("--model.network own.MyNte", "did you mean MyNet"),
        ("--model.network own.py", "own.py is a file; name the class in it by its dotted path, such as own.MyNet"),
        ("--data PairedDataModul", "did you mean PairedDataModule"),
        ("--data.crpo 3", "Option 'crpo' is not accepted; did you mean crop?"),
        ("--model.network.widht 3", "Option 'widht' is not accepted; did you mean width?"),
        ("--trainer.callbacks+=ModelCheckpont", "did you mean ModelCheckpoint"),
        ("--data.layout gopor", "did you mean gopro"),
        ("--model.metrics '{lpip: LPIP}'", "did you mean LPIPS"),
        ("--model.network ownn.MyNet", "No module named 'ownn'; did you mean own?"),
        ("--model.reblur_sharpness psudo", "expected one of 'pseudo', 'real', but came 'psudo'; did you mean pseudo?"),
        (
            "--model.adversarial hing",
            "one of 'vanilla', 'hinge', 'lsgan', 'wgan', but came 'hing'; did you mean hinge?",
        ),
        ("--trainer.precision 16-mixd", "but came '16-mixd'; did you mean 16-mixed"),
        ("--model.optimizer Adam --model.optimizer.lr fast", "expected a number, such as 0.0001, but came 'fast'"),
        ("--model.optimizer Adam --model.optimizer.lr Adam", "expected a number, such as 0.0001, but came 'Adam'"),
        ("--model.lr 1e-3", "is not accepted; did you mean --model.optimizer torch.optim.Adam --model.optimizer.lr?"),
        ("--lr 1e-3", "unknown option --lr; did you mean --model.optimizer torch.optim.Adam --model.optimizer.lr?"),
        ("--model.batch_size 4", "is not accepted; did you mean --data.batch_size?"),
        ("--trainer.crop 4", "unknown option --trainer.crop; did you mean --data.crop?"),
        ("--data.max_epochs 4", "is not accepted; did you mean --trainer.max_epochs?"),
        ("--model.network DMPHN --model.levels [1]", "'levels' is not accepted; did you mean --model.network.levels?"),
        ("--model.network=DMPHN --model.reblur_net null --model.width 8", "did you mean --model.network.widths?"),
        ("--model.blocks 2", "'blocks' is not accepted; did you mean --model.reblur_net.blocks?"),
        ("--model.width 8", "did you mean --model.network.width or --model.reblur_net.width?"),  # a user's network, too
    ],
)
def test_what_may_have_been_meant(project, capsys, words, expected):  # noqa: F811
    assert expected in fails(capsys, *shlex.split(words))


def test_a_module_with_optimizers_of_its_own_is_not_asked_for_ours(project, capsys):  # noqa: F811
    assert fails(capsys, "--model", "own.MyDeblur", "--model.lr", "1e-3").endswith("Option 'lr' is not accepted")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--data.crop 60.5", "--data.crop: reblurkit.PairedDataModule: expected a whole number, but came 60.5"),
        ("--data.crop ''", "--data.crop: reblurkit.PairedDataModule: expected a whole number, but came ''"),
        ("--data.batch_size 2.5", "--data.batch_size: reblurkit.PairedDataModule: expected a whole number, but"),
        ("--model.network.width 2.5", "--model.network.width: own.MyNet: expected a whole number, but came 2.5"),
        ("--trainer.max_epochs 1.5", "--trainer.max_epochs: expected a whole number, but came 1.5"),
        ("--image_logger.images 2.5", "--image_logger.images: expected a whole number, but came 2.5"),
        ("--seed_everything 1.5", "--seed_everything: expected true or false, or a whole number, but came 1.5"),
        ("--trainer.gradient_clip_val x", "--trainer.gradient_clip_val: expected a number, but came 'x'"),
        ("--data.augment 3", "--data.augment: reblurkit.PairedDataModule: expected true or false, but came 3"),
    ],
)
def test_values_of_another_kind(project, capsys, words, expected):  # noqa: F811
    assert expected in fails(capsys, *shlex.split(words))


def test_a_monitor_that_nobody_logs_is_refused_before_an_epoch_is_lost(project, capsys):  # noqa: F811
    config = yaml.safe_load((project / "config.yaml").read_text())
    for monitor, expected in {"val/pnsr": "did you mean val/psnr", "train/los": "did you mean train/loss"}.items():
        checkpoint = {"class_path": "ModelCheckpoint", "init_args": {"monitor": monitor}}
        config["trainer"]["callbacks"] = [checkpoint]
        (project / "config.yaml").write_text(yaml.safe_dump(config))
        assert expected in fails(capsys)
        assert not list(project.glob("run/**/*.ckpt"))
    for monitor in ("val/pnsr", "val/loss"):  # without a sanity check, by what the task promises
        assert f"{monitor!r} is not logged" in fails(
            capsys, "--trainer.num_sanity_val_steps", "0", f"--trainer.callbacks.monitor={monitor}"
        )
        assert not list(project.glob("run/**/*.csv"))
    config["trainer"]["callbacks"][0]["init_args"]["monitor"] = "val/psnr"
    assert run("fit", "--trainer.num_sanity_val_steps", "0", "--trainer.callbacks.monitor=val/ssim") == 0
    (project / "config.yaml").write_text(yaml.safe_dump(config))
    assert run("fit") == 0


def test_errors_of_arguments_name_the_options(project, capsys):  # noqa: F811
    discriminator = ["--model.discriminator", "PatchGAN", "--model.discriminator.width", "4"]
    line = fails(capsys, *discriminator)
    assert "use a --data.crop of at least 24" in line
    assert "name the folders by --data.blur and --data.sharp" in fails(capsys, "--data.root", str(project))
    options = {"model": Namespace(init_args=Namespace(seed=0)), "data": Namespace(init_args=Namespace(seed=0))}
    options["trainer"] = Namespace(precision=None)
    assert with_flags("`precision` 32, `seed` 1", options) == "--trainer.precision 32, `seed` 1"  # whose seed?


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "a configuration must say what model, data and trainer are, but is empty"),
        ("[]", "a configuration must say what model, data and trainer are, but is []"),
        ("date: {class_path: PairedDataModule, init_args: {root: a}}", "key date in other.yaml; did you mean data?"),
        ("modle: {}", "unknown key modle in other.yaml; did you mean model?"),
        (
            "model: 3",
            "--model: expected a LightningModule: a class such as my_net.MyNet, or its class_path",
        ),
        ("model:\n\tx: 1", "other.yaml is none: line 2, column 1: found character that cannot start any token"),
        ("data:\n  init_args:\n    crop 64", "other.yaml is none: line 3, column 5: 'crop 64' has no colon"),
        (
            "data:\n  init_args:\n    root: a\n    crop 64",
            "other.yaml is none: line 4, column 5: could not find expected",
        ),
        ("trainer:\n  max_epochs 3", "other.yaml is none: line 2, column 3: 'max_epochs 3' has no colon"),
        ("model DeblurTask", "other.yaml is none: line 1, column 1: 'model DeblurTask' has no colon"),
        ("lr: 1e-3", "key lr in other.yaml; did you mean --model.optimizer torch.optim.Adam --model.optimizer.lr?"),
        ("model: {class_path: DeblurTask, lr: 1e-3}", "arguments of the class belong below init_args"),
        ("trainer: {loger: false}", "unknown key trainer.loger; did you mean trainer.logger or trainer.profiler"),
        ("trainer: {max_epoch: 1}", "unknown key trainer.max_epoch; did you mean trainer.max_epochs"),
        (
            "model: {init_args: {reblur_nett: {class_path: ReblurNet, init_args: {width: 4}}}}",
            "did you mean reblur_net",
        ),
        ("model: {init_args: {network: 3}}", "expected a Module: a class such as my_net.MyNet, or its class_path"),
        ("\xff", "--config must be a YAML file, but other.yaml is no text"),
    ],
)
def test_configurations_that_are_none(project, capsys, text, expected):  # noqa: F811
    (project / "other.yaml").write_bytes(text.encode("latin-1"))
    words = ["--config", "config.yaml"] if "init_args" in text else []
    assert main(["fit", *words, "--config", "other.yaml"]) == 2
    assert expected in capsys.readouterr().err


def test_a_configuration_may_be_written_out_at_length(project, capsys):  # noqa: F811
    config = yaml.safe_load((project / "config.yaml").read_text()) | {"seed_everything": "no number"}
    config["model"]["init_args"]["metrics"] = {f"psnr_{index}": None for index in range(999)}
    assert main(["fit", "--config", json.dumps(config)]) == 2
    assert "seed_everything" in capsys.readouterr().err


def test_missing_words(project, capsys):  # noqa: F811
    assert main(["fit"]) == 2
    line = capsys.readouterr().err
    assert "fit needs --data and --model; name them in a file (--config FILE) or as --model DeblurTask" in line
    assert main(["fit", "--model", "DeblurTask", "--model.network", "UNet", "--data", "PairedDataModule"]) == 2
    assert "--data.root must be given" in capsys.readouterr().err


def test_weights_that_were_loaded_are_named(project, capsys):  # noqa: F811
    assert run("fit") == 0
    (checkpoint,) = project.glob("run/**/*.ckpt")
    assert run("validate", "--model.weights", str(checkpoint)) == 0
    assert f"no --ckpt_path: the network has the weights of {checkpoint}" in capsys.readouterr().err
    for command in ("test", "validate", "predict"):
        assert run(command, "--ckpt_path", str(checkpoint), "--model.network.width", "5") == 2
        (line,) = (line for line in capsys.readouterr().err.splitlines() if "error: " in line)
        assert "does not fit the networks: network.layers.0.weight is (3, 3, 3, 3) in the file and (5, 3, 3, 3)" in line
        assert line.endswith("; the file may be of --model.network.width 3")
    for option in ("--start_from", "--model.weights"):
        line = fails(capsys, option, str(checkpoint), "--model.network.width", "5")
        assert "(3, 3, 3, 3) in" in line
        assert line.endswith("; the file may be of --model.network.width 3")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("nan", "--model.optimizer.lr: reblurkit.DeblurTask: expected a number, such as 0.0001, but came 'nan'"),
        ("0,001", "--model.optimizer.lr: reblurkit.DeblurTask: expected a number, such as 0.0001, but came '0,001'"),
        (".nan", "--model.optimizer.lr must be a number of at least 0, but is nan"),
        ("-1", "--model.optimizer.lr must be a number of at least 0, but is -1.0"),
    ],
)
def test_numbers_that_an_optimizer_does_not_take(project, capsys, value, expected):  # noqa: F811
    assert expected in fails(capsys, "--model.optimizer", "Adam", "--model.optimizer.lr", value)
    assert "--model.optimizer.momentum must be a number of at least 0, but is -2.0" in fails(
        capsys, "--model.optimizer", "SGD", "--model.optimizer.momentum", "-2"
    )


def test_a_crop_that_the_network_cannot_train_on(project, capsys):  # noqa: F811
    line = fails(capsys, "--model.network", "own.Eighth", "--data.crop", "20")
    assert "must divide by 8, but are 20 x 20; choose a --data.crop of 16 or 24" in line


def test_nothing_to_validate_on(project, capsys):  # noqa: F811
    line = fails(capsys, "--data.val_split", "validation")
    assert line.endswith(
        "there are training images and none to validate on (no images match 'validation/blur/**/*' in pairs): let "
        "--data.val_split name a split that has some, for instance test, or do without by --trainer.limit_val_batches 0"
    )
    assert "training images" not in fails(capsys, "--data.train_split", "training")


def test_a_checkpoint_that_waits_for_a_validation_that_there_is_not(project, capsys):  # noqa: F811
    config = yaml.safe_load((project / "config.yaml").read_text())
    best = {"class_path": "ModelCheckpoint", "init_args": {"monitor": "val/psnr"}}
    last = {"class_path": "ModelCheckpoint", "init_args": {"filename": "last"}}
    off = ["--trainer.limit_val_batches", "0"]

    def given(*callbacks):
        config["trainer"]["callbacks"] = callbacks
        (project / "config.yaml").write_text(yaml.safe_dump(config))

    given(best)
    line = fails(capsys, *off)
    assert "waits for val/psnr, but --trainer.limit_val_batches is 0" in line
    assert not list(project.glob("run/**/*.ckpt"))
    given(best, last)
    with pytest.warns(match="waits for val/psnr.*: it writes none, others do"):
        assert run("fit", *off) == 0
    assert [path.name for path in project.glob("run/**/*.ckpt")] == ["last.ckpt"]
    best["init_args"]["save_last"] = True
    given(best)
    assert run("fit", *off) == 0
    assert "checkpoint: " in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("ModelCheckpoint", {"mode": "maximum"}, "`mode` can be min, max but got maximum"),
        ("EarlyStopping", {"monitor": "val/psnr", "mode": "maximum"}, "`mode` can be min, max, got maximum"),
        ("ModelCheckpoint", {"save_top_k": -3}, "Invalid value for save_top_k=-3. Must be >= -1"),
    ],
)
def test_what_a_callback_refuses(project, capsys, name, arguments, expected):  # noqa: F811
    config = yaml.safe_load((project / "config.yaml").read_text())
    best = {"class_path": "EarlyStopping", "init_args": {"monitor": "val/psnr", "mode": "min"}}
    for others in ([], [best]):
        config["trainer"]["callbacks"] = [{"class_path": name, "init_args": arguments}, *others]
        (project / "config.yaml").write_text(yaml.safe_dump(config))
        assert fails(capsys).endswith(f"--trainer.callbacks: lightning.pytorch.callbacks.{name}: {expected}")


def test_a_training_that_logs_no_step(project, capsys):  # noqa: F811
    def said(*words):
        capsys.readouterr()
        assert run("fit", *words) == 0
        (version,) = {*project.glob("run/lightning_logs/*")} - seen
        seen.add(version)
        line = "no training loss will be logged: the training ends after step"
        return line in capsys.readouterr().err, "train/loss" in (version / "metrics.csv").read_text()

    seen = set()
    logger = ("--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "run")
    assert said(*logger) == (True, False)
    assert said(*logger, "--trainer.log_every_n_steps", "1") == (False, True)
    two = ("--trainer.max_epochs", "2", "--trainer.log_every_n_steps", "2")  # steps, in epochs of one
    assert said(*logger, *two) == (False, True)


def test_a_trial_run_has_no_folder(project, capsys):  # noqa: F811
    for command in ("fit", "test"):
        assert run(command, "--trainer.fast_dev_run", "true") == 0
        assert "no run folder: --trainer.fast_dev_run keeps no log and no checkpoint" in capsys.readouterr().err
    assert run("predict", "--trainer.fast_dev_run", "true") == 0
    assert "images: run/deblurred" in capsys.readouterr().err
    assert list(project.glob("run/deblurred/**/*.png"))


def test_blurry_images_alone(project, capsys):  # noqa: F811
    save(project / "alone" / "train" / "blur" / "1.png")
    line = fails(capsys, "--data.root", "alone")
    assert "`reblurkit adapt-video`" in line
    assert "Blur2BlurTranslator" in line
    line = fails(capsys, "--data.train_split", "training")  # beside splits that have both
    assert "no images match 'training/blur/**/*' in pairs; pairs holds: test, train, val" in line
    assert "adapt-video" not in line


def test_negative_numbers_with_exponents_are_values(project, capsys):  # noqa: F811
    with pytest.raises(ArgumentError, match=r"--adapt-lr: must be a number above 0, such as 3e-6, but is -1e-4"):
        command_parser(["deblur"]).parse_args(["deblur", "a", "--output", "b", "--adapt-lr", "-1e-4"])
    assert (
        command_parser(["adapt-video"]).parse_args(["adapt-video", "a", "--output", "b", "--lr", "-1e-4"]).lr == -1e-4
    )
    assert not NEGATIVE_NUMBER.match("-1e-4x")
    adam = ["--model.optimizer", "torch.optim.Adam", "--model.optimizer.lr", "-1e-4"]
    assert "--model.optimizer.lr must be a number of at least 0, but is -0.0001" in fails(capsys, *adam)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("deblur a.png --outptu b", "unknown option --outptu; did you mean --output?"),
        ("deblur a.png --output=b --til 3", "unknown option --til; did you mean --tile"),
        ("adapt-video a --expsure 1", "unknown option --expsure; did you mean --exposure"),
        ("demo --steps 1.5", "argument --steps: must be a whole number, but is 1.5"),
        ("adapt-video a --output b --lr x", "argument --lr: must be a number, but is x"),
        ("fti", "unknown command fti; did you mean fit?"),
        (
            "deblur a.png --output b --adapt-for sharpnes",
            "fidelity or sharpness, but is sharpnes; did you mean sharpness?",
        ),
        ("deblur a.png --output b --existing skp", "refuse, skip or overwrite, but is skp; did you mean skip?"),
        ("completion bsh", "argument shell: must be bash or zsh, but is bsh; did you mean bash"),
        ("deblur a.png --output b --model unett", "unknown network 'unett'; did you mean unet?"),
    ],
)
def test_mistyped_words_of_other_commands(tmp_path, monkeypatch, capsys, words, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").touch()
    assert main(words.split()) == 2
    assert expected in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(project, capsys):  # noqa: F811
    assert fails(capsys, "--trainer.accelerator", "gpu").endswith("leave out --trainer.accelerator, or give cpu")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["adapt-video", "", "--output", "out"], "CLIP"),
        (["adapt-video", "clip", "--output", "out", "--labelled", ""], "--labelled"),
        (["deblur", "photos", "--output", ""], "--output"),
        (["deblur", "photos", "--output", "out", "--weights="], "--weights"),
        (["demo", "--output", ""], "--output"),
        (["report", "runs", ""], "RUN"),
    ],
)
def test_the_name_of_a_file_that_is_empty(capsys, words, named):
    """As ``$UNSET`` in quotes gives it; the folder that a user is in is not meant."""
    assert main(words) == 2
    assert capsys.readouterr().err == f"reblurkit: error: {named} is an empty word; write . for the folder you are in\n"
