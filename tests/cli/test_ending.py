"""Every end says what it was: 143 after SIGTERM, 130 after Ctrl-C, 129 after SIGHUP, with nothing half done."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import stat
import sys
import time

import numpy as np
import pytest
import torch

import reblurkit.cli.demo
import reblurkit.inference
from reblurkit.cli import main
from reblurkit.cli.ending import listening
from reblurkit.core.file_locks import MARK
from reblurkit.data import write_image
from reblurkit.models import UNet
from reblurkit.plugins.callbacks.flow_reblur import FlowReblurFinetuneCallback
from tests.cli.test_adapt_video import adapt
from tests.cli.test_adapt_video import work as clips  # noqa: F401  # a fixture
from tests.cli.test_run_files import configure, run
from tests.cli.test_run_files import folder as project  # noqa: F401  # a fixture

ENDS = {signal.SIGTERM: (143, "terminated"), signal.SIGINT: (130, "interrupted"), signal.SIGHUP: (129, "hung up")}
OWN = """
import os, signal
import lightning.pytorch as L

class Sender(L.Callback):
    \"\"\"Sends signals to the process that it runs in.\"\"\"

    def __init__(self, signals: list[int], hook: str = "on_train_batch_start"):
        def send(*_):
            if waiting:
                os.kill(os.getpid(), waiting.pop(0))
        waiting = list(signals)
        setattr(self, hook, send)
"""


@pytest.fixture
def usual_signals():
    """As in a process of its own; a test runner may have changed them."""
    before = {number: signal.getsignal(number) for number in (*ENDS, signal.SIGUSR1)}
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(params=ENDS, ids=["SIGTERM", "SIGINT", "SIGHUP"])
def number(request, usual_signals, capsys):
    """A signal, and that it has ended a command as it should."""
    yield request.param
    status, word = ENDS[request.param]
    assert run.status == status
    assert capsys.readouterr().err.splitlines()[-1] == f"reblurkit: {word}"
    assert signal.getsignal(signal.SIGTERM) == signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


def sends(number, *_, **__):
    os.kill(os.getpid(), number)


@pytest.fixture
def sender(project, monkeypatch):  # noqa: F811
    (project / "sender.py").write_text(OWN)
    monkeypatch.syspath_prepend(project)
    monkeypatch.delitem(sys.modules, "sender", raising=False)

    def words(signals, hook):
        arguments = {"signals": [*map(int, signals)], "hook": hook}
        return {"callbacks": [{"class_path": "sender.Sender", "init_args": arguments}]}

    return words


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_a_trainer_ends_at_once(project, sender, number, command):  # noqa: F811
    hook = {"fit": "on_train_batch_start", "validate": "on_validation_batch_start"}
    configure(project / "config.yaml", trainer=sender([number], hook.get(command, f"on_{command}_batch_start")))
    run.status = run(command, "--config", "config.yaml", "--trainer.default_root_dir", "out")
    assert not list(project.rglob(f"{MARK}*"))


@pytest.mark.parametrize("number", ENDS)
def test_fit_says_how_it_goes_on(project, sender, usual_signals, number, capsys):  # noqa: F811
    (project / "sender.py").write_text(OWN.replace("if waiting:", "if waiting and _[0].global_step > 1:"))
    trainer = sender([number], "on_train_batch_end") | {"max_epochs": 6}
    for each, expected in {1: "newest checkpoint: ", 100: "nothing of this run is saved yet; the same"}.items():
        checkpoint = {"class_path": "ModelCheckpoint", "init_args": {"every_n_train_steps": each, "filename": "at"}}
        callbacks = [checkpoint, *trainer["callbacks"]]
        configure(project / "config.yaml", trainer={**trainer, "callbacks": callbacks})
        assert run("fit", "--config", "config.yaml", "--trainer.default_root_dir", "out") == ENDS[number][0]
        line = capsys.readouterr().err.splitlines()[-2]
        assert line.startswith("reblurkit: run folder: out; ")
        assert expected in line
        if each == 1:
            path = line.partition("--ckpt_path ")[2].partition(" to the same")[0]
            assert torch.load(path, weights_only=True)["global_step"] == 1  # that of the batch comes after
    often = line.partition("and with ")[2].partition(" it saves")[0].replace("=100", "=1")
    assert run("fit", "--config", "config.yaml", "--trainer.default_root_dir", "out", *shlex.split(often)) != 0
    assert "newest checkpoint: " in capsys.readouterr().err.splitlines()[-2]  # as it says


def test_deblur_ends_at_once_and_goes_on(tmp_path, monkeypatch, number, capsys):
    monkeypatch.chdir(tmp_path)
    for index in range(3):
        write_image(torch.rand(3, 20, 24), f"photos/{index}.png")
    real, calls = reblurkit.inference.Deblurrer.__call__, []

    def second(self, blurry):
        calls.append(blurry)
        if len(calls) == 2:
            sends(number)
        return real(self, blurry)

    monkeypatch.setattr(reblurkit.inference.Deblurrer, "__call__", second)
    words = ["deblur", "photos", "--output", "out", "--device", "cpu"]
    torch.save(UNet(0, (4, 4, 4)).state_dict(), "unet.pt")
    words += ["--model", "unet", "--network-args", '{"blocks": 0, "widths": [4, 4, 4]}', "--weights", "unet.pt"]
    run.status = main(words)
    assert sorted(os.listdir("out")) == ["0.png"]
    said = capsys.readouterr().err
    assert "what is done stays in out; the same command with --existing skip goes on with the rest" in said
    assert main([*words, "--existing", "skip"]) == 0
    assert sorted(os.listdir("out")) == ["0.png", "1.png", "2.png"]
    capsys.readouterr()
    print(said, file=sys.stderr, end="")  # what the fixture looks at


@pytest.mark.usefixtures("clips")
def test_adapt_video_ends_at_once(monkeypatch, number):
    monkeypatch.setattr(FlowReblurFinetuneCallback, "on_train_start", lambda *_: sends(number))
    run.status = adapt()
    assert not os.path.exists("out")


@pytest.mark.usefixtures("small_box")
def test_the_demo_ends_at_once(tmp_path, monkeypatch, number):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reblurkit.cli.demo._Advance, "on_train_batch_end", lambda *_: sends(number))
    run.status = main(["demo", "--steps", "3"])
    assert not os.path.exists("runs")


@pytest.mark.usefixtures("usual_signals")
def test_an_end_that_got_lost_is_still_told(capsys, monkeypatch):
    def lost(*_):
        class Careless:
            def __del__(self):
                sends(signal.SIGTERM)
                np.zeros(1).sum()  # the handler runs here, and what it raises is ignored

        Careless()

    monkeypatch.setattr(sys.modules["reblurkit.cli.main"], "check_named_files", lost)
    assert main(["completion", "bash"]) == 143
    assert capsys.readouterr().err == "reblurkit: terminated\n"


@pytest.mark.parametrize("number", ENDS)
def test_an_end_that_got_lost_ends_all_the_same(usual_signals, monkeypatch, number):
    """Some library catches everything; cleaning up, which may take longer, is not disturbed."""
    monkeypatch.setattr("reblurkit.cli.ending._TWICE", 0.05)
    cleaned = []

    def work():
        try:
            with contextlib.suppress(BaseException):
                sends(number)
            time.sleep(60)
        finally:
            time.sleep(0.3)
            cleaned.append(True)

    since = time.monotonic()
    with listening() as told, pytest.raises((SystemExit, KeyboardInterrupt)):
        work()
    assert cleaned
    assert time.monotonic() - since < 30  # not the minute
    assert told.status == ENDS[number][0]


def test_what_the_caller_handles_or_ignores_is_left_to_it(usual_signals):
    heard = []
    signal.signal(signal.SIGTERM, lambda *_: heard.append("term"))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as by nohup
    with listening() as told:
        for number in ENDS:
            sends(number)
    assert heard == ["term"]
    assert told.signal is None


def test_a_signal_that_comes_twice_does_not_disturb_the_cleaning_up(usual_signals):
    cleaned = []

    def work():
        try:
            sends(signal.SIGTERM)
        finally:
            sends(signal.SIGTERM)
            cleaned.append(True)

    with listening() as told, pytest.raises(SystemExit) as end:
        work()
    assert cleaned
    assert end.value.code == told.status == 143


def test_slurm_queues_a_training_anew(project, sender, usual_signals, capsys, monkeypatch):  # noqa: F811
    """SIGUSR1 writes a checkpoint and calls scontrol; SIGTERM, which then comes, waits for the end of the step."""
    fake = project / "bin" / "scontrol"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\necho "$@" >> {project}/asked\n')
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
    for name, value in {"NTASKS": 1, "JOB_ID": 7, "JOB_NAME": "train", "PROCID": 0, "LOCALID": 0, "NODEID": 0}.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    options = {**sender([signal.SIGUSR1, signal.SIGTERM], "on_train_batch_start"), "max_epochs": 4}
    configure(project / "config.yaml", trainer=options)
    words = ["fit", "--config", "config.yaml", "--trainer.default_root_dir", "out"]
    assert run(*words) == 143
    assert capsys.readouterr().err.splitlines()[-1] == "reblurkit: terminated"
    assert (project / "asked").read_text() == "requeue 7\n"
    saved = torch.load(project / "out" / "hpc_ckpt_1.ckpt", weights_only=True)
    assert not list(project.rglob(f"{MARK}*"))
    configure(project / "config.yaml", trainer={"max_epochs": 4})
    assert run(*words) == 0
    assert f"resumed out/hpc_ckpt_1.ckpt at epoch {saved['epoch']}, step {saved['global_step']}" in (
        capsys.readouterr().err.replace(f"{project}/", "")
    )
