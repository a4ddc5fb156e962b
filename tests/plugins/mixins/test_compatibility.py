"""The mixin together with what users' training runs are made of."""

from __future__ import annotations

import copy

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.checkpoint import checkpoint

from reblurkit.models import ReblurNet
from tests.conftest import MultiScaleNet, PlainNet
from tests.plugins.mixins.test_reblur import Plain, Reblurred, assert_bit_equal, loader, trainer

SCHEDULERS = {
    "none": None,
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 16),
    "step": lambda o: lr_scheduler.StepLR(o, 3, 0.5),
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda step: 0.9**step),
    "one-cycle": lambda o: lr_scheduler.OneCycleLR(o, 1e-2, total_steps=16),
    "sequential": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o, 0.1, 4), lr_scheduler.StepLR(o, 4)], [4]
    ),
    "plateau": None,
}


@pytest.mark.parametrize("own_parameters_only", [True, False], ids=["network.parameters()", "self.parameters()"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_move_as_without_the_mixin(tmp_path, name, own_parameters_only):
    def fit(base, *arguments):
        class Scheduled(base):
            rates = ()

            def configure_optimizers(self):
                module = self.network if own_parameters_only else self
                optimizer = torch.optim.Adam(module.parameters(), 1e-2)
                if name == "plateau":
                    schedule = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=0.9)
                    return [optimizer], [{"scheduler": schedule, "monitor": "loss", "interval": "epoch"}]
                if name == "none":
                    return optimizer
                return [optimizer], [{"scheduler": SCHEDULERS[name](optimizer), "interval": "step"}]

            def training_step(self, batch, batch_idx):
                self.log("loss", 1.0, on_epoch=True)
                self.rates += (self.trainer.optimizers[0].param_groups[0]["lr"],)
                return super().training_step(batch, batch_idx)

        module = Scheduled(*copy.deepcopy(arguments))
        trainer(tmp_path).fit(module, loader())
        return module

    network = PlainNet()
    plain, reblurred = fit(Plain, network), fit(Reblurred, network, ReblurNet(width=4))
    assert reblurred.rates == plain.rates
    assert reblurred._auxiliary.steps("reblur") == 16


def test_weight_averaging(tmp_path):
    average = EMAWeightAveraging(decay=0.5)
    module = Reblurred(PlainNet(), ReblurNet(width=4))
    trainer(tmp_path, callbacks=[average]).fit(module, loader())
    assert module._auxiliary.steps("reblur") == 16


def test_checkpointing_and_early_stopping_on_the_logged_loss(tmp_path):
    module = Reblurred(PlainNet(), ReblurNet(width=4))
    best = ModelCheckpoint(tmp_path / "best", monitor="train/loss_reblur", save_top_k=1)
    stop = EarlyStopping("train/loss_blur", patience=0, min_delta=10.0, check_on_train_epoch_end=True)
    run = trainer(tmp_path, callbacks=[best, stop], max_epochs=50, enable_checkpointing=True)
    run.fit(module, loader())
    assert run.current_epoch == 2
    assert best.best_model_path


@pytest.mark.parametrize("accumulate", [1, 2])
def test_bfloat16_autocast(tmp_path, accumulate):
    module = Reblurred(PlainNet(), ReblurNet(width=4))
    before = copy.deepcopy(module.state_dict())
    trainer(tmp_path, precision="bf16-mixed", accumulate_grad_batches=accumulate).fit(module, loader())
    for name, value in module.state_dict().items():
        assert value.isfinite().all()
        assert not torch.equal(value, before[name]), name


@pytest.mark.parametrize("what", ["network", "reblur network", "module"])
def test_compile_gives_the_same_training(tmp_path, what):
    network, reblur_net = PlainNet(), ReblurNet(width=4)
    eager, module = (Reblurred(*copy.deepcopy((network, reblur_net))) for _ in range(2))
    trainer(tmp_path, max_epochs=1).fit(eager, loader())
    if what == "network":
        module.network.compile(backend="aot_eager")
    elif what == "reblur network":
        module.reblur.compile(backend="aot_eager")
    else:
        trainer(tmp_path, max_epochs=1).fit(torch.compile(module, backend="aot_eager"), loader())
    if what != "module":
        trainer(tmp_path, max_epochs=1).fit(module, loader())
    torch.testing.assert_close(module.state_dict(), eager.state_dict(), rtol=0, atol=1e-6)


def test_activation_checkpointing(tmp_path):
    class Checkpointed(PlainNet):
        def forward(self, image):
            return image + checkpoint(self.body, image, use_reentrant=False)

    network, reblur_net = PlainNet(), ReblurNet(width=4)
    wrapped = Checkpointed()
    wrapped.load_state_dict(network.state_dict())
    plain, module = Reblurred(network, copy.deepcopy(reblur_net)), Reblurred(wrapped, reblur_net)
    for each in (plain, module):
        trainer(tmp_path).fit(each, loader())
    torch.testing.assert_close(module.state_dict(), plain.state_dict(), rtol=0, atol=1e-7)


def test_checkpoints_with_and_without_the_reblurring_network_load_into_each_other(tmp_path):
    plain, reblurred = Plain(PlainNet()), Reblurred(PlainNet(), ReblurNet(width=4))
    for name, module in {"plain": plain, "reblurred": reblurred}.items():
        run = trainer(tmp_path, max_steps=1)
        run.fit(module, loader())
        run.save_checkpoint(tmp_path / f"{name}.ckpt", weights_only=True)
    for module, source in ((Plain(PlainNet()), "reblurred"), (Reblurred(PlainNet(), ReblurNet(width=4)), "plain")):
        module.strict_loading = False  # the documented line
        state = torch.load(tmp_path / f"{source}.ckpt", weights_only=True)["state_dict"]
        module.load_state_dict(state, strict=module.strict_loading)
        assert_bit_equal(module.network, {"plain": plain, "reblurred": reblurred}[source].network)


def test_multi_scale_networks(tmp_path):
    class MultiScale(Reblurred):
        def training_step(self, batch, batch_idx):
            scales = self.network(batch["blurry"])
            loss = sum(
                nn.functional.l1_loss(x, nn.functional.interpolate(batch["sharp"], x.shape[-2:])) for x in scales
            )
            return loss + self.reblur_loss(scales, batch["sharp"], batch["blurry"])

    module = MultiScale(MultiScaleNet(), ReblurNet(width=4))
    trainer(tmp_path).fit(module, loader())
    assert module._auxiliary.steps("reblur") == 16
