"""M_R beside a frozen network: against a hand-written loop, and the network never moves."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from reblurkit import strip_reblur
from reblurkit.errors import ArgumentError, ShapeError, WeightsError
from reblurkit.metrics import PSNR, ReblurPSNR
from reblurkit.models import ReblurNet, load_pretrained, save_weights
from reblurkit.plugins import AtRest, ReblurTask, checkpoint_metrics
from tests.conftest import BatchNormNet, DropoutNet, MultiScaleNet, PlainNet
from tests.plugins.mixins.test_reblur import assert_bit_equal, loader, trainer


class AwkwardNet(BatchNormNet):
    """Moves by itself in training mode: statistics and dropout."""

    def __init__(self):
        super().__init__()
        self.body.insert(3, nn.Dropout(0.3))
        self.body[1].running_mean.uniform_()


def hand_written_loop(network, reblur_net, steps, sharpness, make_optimizer, make_scheduler):
    network = copy.deepcopy(network).eval()
    optimizer = make_optimizer(reblur_net.parameters())
    scheduler = make_scheduler(optimizer)
    for batch in [batch for _ in range(steps) for batch in loader()][:steps]:
        with torch.no_grad():
            deblurred, preserved = network(batch["blurry"]), batch["sharp"]
            if sharpness == "pseudo":
                preserved = network(batch["sharp"])
        loss = F.l1_loss(reblur_net(deblurred), batch["blurry"])
        if sharpness:
            loss = loss + F.l1_loss(reblur_net(preserved), preserved)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("sharpness", ["pseudo", "real", None])
def test_training_equals_a_hand_written_loop_bit_for_bit(tmp_path, sharpness):
    network, reblur_net = AwkwardNet(), ReblurNet(width=6)
    expected = copy.deepcopy(reblur_net)
    hand_written_loop(
        network,
        expected,
        12,
        sharpness,
        lambda parameters: torch.optim.Adam(parameters, 1e-4),
        lambda optimizer: torch.optim.lr_scheduler.MultiStepLR(optimizer, [6, 9, 10], 0.5),
    )
    task = ReblurTask(network, reblur_net, sharpness=sharpness)
    run = trainer(tmp_path, max_steps=12, max_epochs=-1)
    run.fit(task, loader())
    assert_bit_equal(task.reblur, expected)
    promised = {"lr-reblur", "train/loss", "train/loss_blur"} | ({"train/loss_sharp"} if sharpness else set())
    assert set(run.logged_metrics) == promised


def test_optimizer_and_scheduler_are_the_users(tmp_path):
    network, reblur_net = PlainNet(), ReblurNet(width=6)
    expected = copy.deepcopy(reblur_net)
    make_optimizer = partial(torch.optim.SGD, lr=0.1)
    every_epoch, every_step = (partial(torch.optim.lr_scheduler.StepLR, step_size=size) for size in (1, 4))
    hand_written_loop(network, expected, 8, "pseudo", make_optimizer, every_step)
    task = ReblurTask(network, reblur_net, optimizer=make_optimizer, scheduler=every_epoch)
    run = trainer(tmp_path, max_epochs=2)
    run.fit(task, loader())
    assert_bit_equal(task.reblur, expected)
    assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.001)


@pytest.mark.parametrize("network_class", [AwkwardNet, DropoutNet, MultiScaleNet])
def test_the_network_stays_as_it_is(tmp_path, network_class):
    network = network_class()
    before = copy.deepcopy(network.state_dict())
    task = ReblurTask(network, ReblurNet(width=6)).train()
    assert task.reblur.training
    assert not any(module.training for module in network.modules())
    run = trainer(tmp_path, max_epochs=2)
    run.fit(task, loader(), loader(batch_size=1, length=2))  # a validation changes modes and changes them back
    assert all(torch.equal(value, before[name]) for name, value in task.network.state_dict().items())
    assert not any(module.training for module in network.modules())
    assert not any(p.requires_grad or p.grad is not None for p in network.parameters())
    held = {id(p) for group in run.optimizers[0].param_groups for p in group["params"]}
    assert held == {id(p) for p in task.reblur.parameters()}


def test_metrics_say_what_the_reblurring_network_does(tmp_path):
    task = ReblurTask(PlainNet(), ReblurNet(width=6))
    images = torch.rand(3, 2, 3, 12, 14)
    pairs = DataLoader([{"blurry": blurry, "sharp": sharp} for blurry, sharp in images])
    (validated,) = trainer(tmp_path).validate(task, pairs, verbose=False)
    (tested,) = trainer(tmp_path).test(task, pairs, verbose=False)
    reblur_psnr, preserved_psnr, psnr = ReblurPSNR(), PSNR(), PSNR()
    with torch.no_grad():
        for batch in pairs:
            deblurred = task.network(batch["blurry"]).clamp(0, 1)
            reblur_psnr.update(task.reblur(deblurred).clamp(0, 1), batch["blurry"])
            preserved_psnr.update(task.reblur(batch["sharp"]).clamp(0, 1), batch["sharp"])
            psnr.update(deblurred, batch["sharp"])
    assert set(validated) == {"val/reblur_psnr", "val/reblur_psnr_deblurred", "val/preserved_psnr"}
    assert {"test/psnr", "test/ssim", "test/gradient_ratio"} <= set(tested)
    for results, stage in ((validated, "val"), (tested, "test")):
        assert results[f"{stage}/reblur_psnr"] == pytest.approx(reblur_psnr.compute().item(), rel=1e-6)
        assert results[f"{stage}/preserved_psnr"] == pytest.approx(preserved_psnr.compute().item(), rel=1e-6)
    assert tested["test/psnr"] == pytest.approx(psnr.compute().item(), rel=1e-6)


def test_the_checkpoint_holds_both_networks(tmp_path):
    official = PlainNet()
    torch.save({"params": official.state_dict()}, tmp_path / "official.pth")
    task = ReblurTask(PlainNet(), ReblurNet(width=6), weights=str(tmp_path / "official.pth"))
    assert_bit_equal(task.network, official)
    run = trainer(tmp_path, max_epochs=1)
    run.fit(task, loader())
    run.save_checkpoint(tmp_path / "a.ckpt")
    checkpoint = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert {key.split(".")[0] for key in checkpoint["state_dict"]} == {"network", "reblur"}
    again = ReblurTask.load_from_checkpoint(
        tmp_path / "a.ckpt", network=PlainNet(), reblur_net=ReblurNet(width=6), weights_only=True
    )
    assert_bit_equal(again, task)
    plain = PlainNet()
    plain.load_state_dict(strip_reblur(tmp_path / "a.ckpt"))
    assert_bit_equal(plain, official)


def test_without_a_reblurring_network_it_is_the_one_in_the_box():
    task = ReblurTask(PlainNet())
    assert_bit_equal(task.reblur, load_pretrained().reblur_net)
    assert task.reblur.training
    assert all(parameter.requires_grad for parameter in task.reblur.parameters())


def test_a_reblurring_network_starts_from_weights(tmp_path):
    shipped = load_pretrained()
    same = shipped.card["reblur_net"]["arguments"]
    assert_bit_equal(ReblurTask(PlainNet(), ReblurNet(**same), reblur_weights="base").reblur, shipped.reblur_net)
    with pytest.raises(
        WeightsError, match="of 'base' does not fit this ReblurNet; it is a ReblurNet with blocks=2, width=48, fold=2"
    ):
        ReblurTask(PlainNet(), ReblurNet(width=3), reblur_weights="base")
    with pytest.raises(WeightsError, match=r"bse cannot be read as a file of weights: .*; did you mean base\?"):
        ReblurTask(PlainNet(), ReblurNet(width=3), reblur_weights="bse")
    mine = ReblurNet(width=3)
    save_weights(mine, tmp_path / "mine.safetensors")
    again = ReblurTask(PlainNet(), ReblurNet(width=3), reblur_weights=str(tmp_path / "mine.safetensors"))
    assert_bit_equal(again.reblur, mine)


def test_training_ends_when_the_reblurring_network_is_at_rest(tmp_path):
    still = partial(torch.optim.SGD, lr=0.0)
    task = ReblurTask(PlainNet(), ReblurNet(width=2), optimizer=still)
    (rule,) = task.configure_callbacks()
    assert isinstance(rule, AtRest)
    assert (rule.monitors, rule.gain, rule.least_steps) == (["val/reblur_psnr", "val/preserved_psnr"], 0.1, 1000)
    rule.least_steps = 18
    run = trainer(tmp_path, max_epochs=9)
    run.fit(task, loader(), loader(length=2))
    assert run.global_step == 28
    assert ReblurTask(PlainNet(), ReblurNet(width=2), rest=None).configure_callbacks() == []


def test_the_checkpoint_says_what_validation_measured(tmp_path):
    task = ReblurTask(PlainNet(), ReblurNet(width=6))
    run = trainer(tmp_path, max_epochs=2)
    run.fit(task, loader(), loader(length=2))
    run.save_checkpoint(tmp_path / "a.ckpt")
    measured = checkpoint_metrics(tmp_path / "a.ckpt")
    assert measured.pop("step") == 8
    assert {f"val/{name}" for name in measured} == {
        "val/reblur_psnr", "val/reblur_psnr_deblurred", "val/preserved_psnr"
    }  # fmt: skip
    (validated,) = trainer(tmp_path).validate(task, loader(length=2), verbose=False)
    for name, value in measured.items():
        assert value == pytest.approx(validated[f"val/{name}"], rel=1e-5)
    run = trainer(tmp_path, max_epochs=1, limit_val_batches=0)
    fresh = ReblurTask(PlainNet(), ReblurNet(width=6))
    run.fit(fresh, loader())
    run.save_checkpoint(tmp_path / "b.ckpt")
    assert checkpoint_metrics(tmp_path / "b.ckpt") == {}


def test_wrong_arguments(tmp_path):
    network, reblur_net = PlainNet(), ReblurNet(width=6)
    with pytest.raises(WeightsError, match=r"none\.pth cannot be read as a file of weights: No such file"):
        ReblurTask(network, reblur_net, weights=str(tmp_path / "none.pth"))
    torch.save(PlainNet(width=5).state_dict(), tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"other\.pth does not fit PlainNet"):
        ReblurTask(network, reblur_net, weights=str(tmp_path / "other.pth"))
    with pytest.raises(ArgumentError, match="must not share parameters"):
        ReblurTask(network, network)
    with pytest.raises(ArgumentError, match="'pseudo', 'real', None"):
        ReblurTask(network, reblur_net, sharpness="fake")
    with pytest.raises(ArgumentError, match="`rest` must be above 0 dB, or null"):
        ReblurTask(network, reblur_net, rest=0)


def test_a_network_that_changes_the_size_is_refused():
    class Shrinking(PlainNet):
        def forward(self, image):
            return super().forward(image)[..., ::2]

    with pytest.raises(ShapeError, match="Shrinking must keep the size of its input"):
        ReblurTask(Shrinking(), ReblurNet(width=6)).training_step(next(iter(loader())), 0)


@pytest.mark.parametrize("reblur_net", [nn.Identity(), ReblurNet(width=4).requires_grad_(False), "reblur-n1"])
def test_what_cannot_be_trained_is_refused(reblur_net):
    with pytest.raises(ArgumentError, match=r"nothing to train|must be an nn\.Module"):
        ReblurTask(PlainNet(), reblur_net)
