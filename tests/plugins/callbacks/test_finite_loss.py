from __future__ import annotations

import math

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.precision import MixedPrecision
from torch.utils.data import DataLoader

from reblurkit import ReblurLossMixin
from reblurkit.core.finite import first_broken_weight, first_not_finite, joint_norm
from reblurkit.errors import NonFiniteLossError
from reblurkit.models import ReblurNet
from reblurkit.plugins import FiniteLoss
from tests.conftest import PlainNet

LOADED = [0.1, 0.2, 0.3, 0.9]  # images of one grey; what is wrong with a batch is decided by its grey


class Poison(torch.autograd.Function):
    """Nothing forward; backward a gradient of ``value`` for the images of grey 0.9."""

    @staticmethod
    def forward(ctx, image, grey, value):
        ctx.bad, ctx.value = bool((grey > 0.8).any()), value
        return image.clone()

    @staticmethod
    def backward(ctx, gradient):
        return torch.full_like(gradient, ctx.value) if ctx.bad else gradient, None, None


class Module(ReblurLossMixin, L.LightningModule):
    def __init__(self, value=math.nan, where="network", manual=False, optimizer=torch.optim.SGD):
        super().__init__()
        self.network = PlainNet()
        self.configure_reblur(ReblurNet(width=4))
        self.value, self.where, self.optimizer, self.automatic_optimization = value, where, optimizer, not manual

    def training_step(self, batch, batch_idx):
        blurry, sharp = batch["blurry"], batch["blurry"].flip(-1)
        deblurred = self.network(blurry)
        if self.where == "network":
            deblurred = Poison.apply(deblurred, blurry, self.value)
        loss = (deblurred - sharp).abs().mean() + self.reblur_loss(deblurred, sharp, blurry)
        if self.where == "loss" and (blurry > 0.8).any():
            loss = loss * self.value
        if self.automatic_optimization:
            return loss
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        return None

    def validation_step(self, batch, batch_idx):
        self.log("val/score", self.network(batch["blurry"]).mean())

    def configure_optimizers(self):
        return self.optimizer(self.parameters(), 1e-3)


class Overflowing(torch.optim.SGD):
    """As with a learning rate that is far too high: weights break on a finite gradient."""

    def step(self, closure=None):
        loss = super().step(closure)
        with torch.no_grad():
            self.param_groups[0]["params"][0].fill_(math.inf)
        return loss


class PoisonedReblurNet(ReblurNet):
    def forward(self, image):
        return Poison.apply(super().forward(image), image, math.nan)


def loader(greys=LOADED):
    items = [{"blurry": torch.full((3, 8, 8), grey) + 0.01 * torch.rand(3, 8, 8), "name": f"{grey}.png"}
             for grey in greys]  # fmt: skip
    return DataLoader(items, batch_size=1)


def fit(tmp_path, module, *, greys=LOADED, epochs=1, callbacks=(), **flags):
    torch.manual_seed(0)
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=epochs, logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path, num_sanity_val_steps=0, callbacks=[FiniteLoss(), *callbacks], **flags,
    )  # fmt: skip
    trainer.fit(module, loader(greys), loader([0.5]))
    return trainer


def stops(tmp_path, module, **options):
    """The error of a training, after which the weights must be whole, and so must every file."""
    with pytest.raises(NonFiniteLossError) as caught:
        fit(tmp_path, module, **options)
    for path in tmp_path.rglob("*.ckpt"):
        state = torch.load(path, weights_only=True)["state_dict"]
        assert all(value.isfinite().all() for value in state.values())
    return str(caught.value)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("flags", [{}, {"gradient_clip_val": 0.1}, {"precision": "bf16-mixed"}])
@pytest.mark.parametrize("monitor", [None, "val/score"])
def test_a_broken_gradient_in_the_last_step_leaves_no_checkpoint(tmp_path, value, flags, monitor):
    module = Module(value)
    best = ModelCheckpoint(tmp_path, monitor=monitor, save_last=True)
    message = stops(tmp_path, module, callbacks=[best], **flags)
    assert "the gradient is NaN or infinite, though the loss is not, in epoch 0, step 3" in message
    assert "the first of network.body.0.weight; files of the batch: 0.9.png; look at" in message
    assert not list(tmp_path.rglob("*.ckpt"))
    assert best.best_model_path == ""
    assert first_broken_weight(module) is None


def test_the_checkpoint_of_the_epoch_before_stays_the_best(tmp_path):
    class Late(Module):
        def on_train_epoch_start(self):
            self.value = math.nan if self.current_epoch else 1.0

    best = ModelCheckpoint(tmp_path, monitor="val/score", mode="max")
    assert "in epoch 1, step 7" in stops(tmp_path, Late(), epochs=3, callbacks=[best])
    assert [path.name for path in tmp_path.iterdir()] == ["epoch=0-step=4.ckpt"]


@pytest.mark.parametrize("manual", [False, True])
def test_a_broken_loss_or_gradient_never_reaches_a_weight(tmp_path, manual):
    for where in ("loss", "network"):
        module = Module(where=where, manual=manual)
        message = stops(tmp_path, module)
        assert message.startswith("the loss is nan" if where == "loss" else "the gradient is NaN"), where
        assert "in epoch 0, step 3" in message
        assert "files of the batch: 0.9.png" in message
        assert first_broken_weight(module) is None


def test_the_reblurring_networks_gradient_is_checked_too(tmp_path):
    module = Module(where="nowhere")
    module.reblur = PoisonedReblurNet(width=4)
    assert "files of the batch: 0.9.png" in stops(tmp_path, module)
    assert first_broken_weight(module) is None


@pytest.mark.parametrize("where", ["loss", "network"])
def test_of_accumulated_batches_the_broken_one_is_named(tmp_path, where):
    message = stops(tmp_path, Module(where=where), greys=[0.1, 0.2, 0.3, 0.9, 0.4, 0.5], accumulate_grad_batches=3)
    assert "step 1" in message
    assert "files of the batch: 0.9.png;" in message


@pytest.mark.parametrize("save_weights_only", [False, True])
def test_weights_that_break_in_the_last_step_are_not_saved(tmp_path, save_weights_only):
    checkpoint = ModelCheckpoint(tmp_path, save_weights_only=save_weights_only)
    message = stops(tmp_path, Module(1.0, optimizer=Overflowing), greys=[0.1], callbacks=[checkpoint])
    assert "the weights are NaN or infinite after epoch 0, step 1, the first in network.body.0.weight" in message
    assert "files of its last step: 0.1.png" in message
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize("save_weights_only", [False, True])
def test_no_way_of_saving_writes_broken_weights(tmp_path, save_weights_only):
    module = Module(1.0)
    trainer = fit(tmp_path, module, enable_checkpointing=False)
    with torch.no_grad():
        next(module.reblur.parameters()).fill_(math.inf)
    with pytest.raises(NonFiniteLossError, match="the first in reblur"):
        trainer.save_checkpoint(tmp_path / "own.ckpt", weights_only=save_weights_only)
    assert not (tmp_path / "own.ckpt").exists()


def test_the_batch_that_broke_the_weights_is_named_and_not_the_next(tmp_path):
    message = stops(tmp_path, Module(1.0, optimizer=Overflowing), greys=[0.1, 0.2])
    assert "the weights are NaN or infinite" in message
    assert "files of its last step: 0.1.png" in message


def test_a_user_who_mends_gradients_is_left_alone(tmp_path):
    class Mending(Module):
        def on_after_backward(self):
            for parameter in self.parameters():
                if parameter.grad is not None:
                    parameter.grad.nan_to_num_(0, 0, 0)

    module = Mending()
    fit(tmp_path, module)
    assert first_broken_weight(module) is None


def half(scale):
    """``16-mixed``, on a CPU: steps of infinite gradients are skipped and the scale halved."""
    return MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=scale))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_steps_whose_scaled_gradients_overflow_are_skipped_as_usual(tmp_path, value):
    module, precision = Module(value), half(2.0**16)
    trainer = fit(tmp_path, module, plugins=[precision])
    assert precision.scaler.get_scale() <= 2.0**15
    assert trainer.global_step == 4
    assert first_broken_weight(module) is None
    assert len(list(tmp_path.rglob("*.ckpt"))) == 1


def test_training_stops_where_no_scale_is_small_enough(tmp_path):
    message = stops(tmp_path, Module(), greys=[0.9] * 4, epochs=2, plugins=[half(2.0)])
    assert "no loss scale is small enough for half precision: train with `precision` 'bf16-mixed' or 32" in message


def test_a_loss_that_is_nan_stops_half_precision_too(tmp_path):
    message = stops(tmp_path, Module(where="loss"), plugins=[half(2.0**16)])
    assert message.startswith("the loss is nan in epoch 0, step 3; files of the batch: 0.9.png")


def test_numbers_whose_squares_overflow_are_finite():
    large = torch.full((3,), 3e38)
    assert joint_norm([large]).isinf()
    assert first_not_finite([("large", large)]) is None
    assert first_not_finite([("large", large), ("nan", large * math.nan)]) == "nan"
    sparse = torch.sparse_coo_tensor([[0, 1]], [1.0, math.nan], (3,))
    assert first_not_finite([("sparse", sparse)]) == "sparse"


def test_masks_of_infinity_are_no_broken_weights():
    module = PlainNet()
    module.register_buffer("mask", torch.tensor([0.0, -math.inf]))
    assert first_broken_weight(module) is None
    module.register_buffer("mean", torch.tensor([0.0, math.nan]))
    assert first_broken_weight(module) == "mean"
