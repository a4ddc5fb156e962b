"""A training ends when all of its metrics have come to rest, and goes on while one of them gains."""

from __future__ import annotations

import lightning.pytorch as L
import pytest
import torch
from torch.utils.data import DataLoader

from reblurkit.errors import ArgumentError
from reblurkit.plugins import AtRest


class Curves(L.LightningModule):
    """Logs what given functions of the step say."""

    def __init__(self, **curves):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.curves = curves

    def training_step(self, batch, batch_idx):
        return self.weight.sum()

    def validation_step(self, batch, batch_idx):
        for name, curve in self.curves.items():
            self.log(f"val/{name}", float(curve(self.global_step)))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(folder, module, callback, max_epochs=60, ckpt_path=None):
    """Train with a validation every 2 steps; return the Trainer."""
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = L.Trainer(
        max_epochs=max_epochs, enable_checkpointing=False, default_root_dir=folder, callbacks=[callback], **quiet
    )
    loaders = DataLoader(torch.zeros(2)), DataLoader(torch.zeros(1))
    trainer.fit(module, *loaders, ckpt_path=ckpt_path, weights_only=True)
    return trainer


def until(end):
    """A curve that rises by 1 a step, and is flat from ``end`` on."""
    return lambda step: min(step, end)


@pytest.mark.parametrize(
    ("psnr", "ssim", "expected"),
    [
        # flat from step 20 on: so is the quarter before the last, (s / 2, 3 s / 4], from s = 36 on
        (until(20), until(0), 36),
        (until(0), until(20), 36),
        (until(20), until(20), 36),
        (until(120), until(0), 120),
        (until(0), until(120), 120),
        (until(20), lambda step: -step, 36),  # what falls gains nothing
        (lambda step: 0.01 * step, until(0), 30),  # less than `gain` a quarter, as soon as it is looked at
    ],
)
def test_all_metrics_must_rest(tmp_path, psnr, ssim, expected):
    callback = AtRest(["val/psnr", "val/ssim"], gain=0.2, least_steps=30)
    assert fit(tmp_path, Curves(psnr=psnr, ssim=ssim), callback).global_step == expected


def test_a_short_training_with_few_validations_is_not_at_rest(tmp_path):
    flat = Curves(psnr=until(0))
    assert fit(tmp_path, flat, AtRest(["val/psnr"], least_steps=0)).global_step == 14  # 2 validations in each quarter
    assert fit(tmp_path, flat, AtRest(["val/psnr"])).global_step == 120


def test_a_resumed_training_remembers_and_another_one_does_not(tmp_path):
    module, callback = Curves(psnr=until(0)), AtRest(["val/psnr"], least_steps=20)
    fit(tmp_path, module, callback, max_epochs=8).save_checkpoint(tmp_path / "last.ckpt")
    assert fit(tmp_path, module, callback).global_step == 20
    later = AtRest(["val/psnr"], least_steps=20)
    assert fit(tmp_path, module, later, ckpt_path=tmp_path / "last.ckpt").global_step == 20
    assert [step for step, _ in later.state_dict()["measured"]] == [*range(2, 22, 2)]


def test_without_a_validation_it_is_said(tmp_path):
    trainer = L.Trainer(max_steps=1, default_root_dir=tmp_path, callbacks=[AtRest(["val/psnr"])], logger=False)
    with pytest.warns(UserWarning, match=r"does not stop at rest: there is no validation that measures \['val/psnr'\]"):
        trainer.fit(Curves(psnr=until(0)), DataLoader(torch.zeros(2)))


def test_only_validations_in_a_training_count(tmp_path):
    callback = AtRest(["val/psnr"], least_steps=0)
    trainer = L.Trainer(default_root_dir=tmp_path, callbacks=[callback], logger=False, enable_progress_bar=False)
    trainer.validate(Curves(psnr=until(0)), DataLoader(torch.zeros(1)), verbose=False)
    assert not callback.state_dict()["measured"]


def test_bad_arguments(tmp_path):
    for arguments, message in (
        ({"monitors": "val/psnr"}, "must be a list of metrics"),
        ({"monitors": []}, "must be a list of metrics"),
        ({"monitors": ["val/psnr"], "gain": 0}, "`gain` must be above 0"),
        ({"monitors": ["val/psnr"], "gain": float("nan")}, "`gain` must be above 0"),
    ):
        with pytest.raises(ArgumentError, match=message):
            AtRest(**arguments)
    with pytest.raises(ArgumentError, match=r"'val/pnsr' is not logged; did you mean val/psnr\?"):
        fit(tmp_path, Curves(psnr=until(0)), AtRest(["val/pnsr"]))
