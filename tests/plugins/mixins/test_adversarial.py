"""The adversarial mixin, and DeblurTask with every loss at once, against a hand-written loop."""

from __future__ import annotations

import copy

import lightning.pytorch as L
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from reblurkit import ReblurLossMixin, strip_reblur
from reblurkit.blur import ShakeBlur
from reblurkit.errors import ArgumentError, PluginError
from reblurkit.losses import AdversarialLoss, VGGLoss, gradient_penalty
from reblurkit.models import PatchGAN, ReblurNet
from reblurkit.plugins import AdversarialLossMixin, DeblurTask, DemoDataModule, WeightedLoss
from tests.conftest import DropoutNet, MultiScaleNet, PlainNet
from tests.plugins.mixins.test_reblur import Plain, assert_bit_equal, clip_and_step, loader, trainer


class Adversarial(AdversarialLossMixin, Plain):
    def __init__(self, network, discriminator=None, **options):
        super().__init__(network)
        self.configure_adversarial(discriminator, **options)

    def training_step(self, batch, batch_idx):
        deblurred = self.network(batch["blurry"])
        return F.l1_loss(deblurred, batch["sharp"]) + self.adversarial_loss(deblurred, batch["sharp"])


BATCHES = list(loader())


def fixed():
    """The batches in their order, without a draw from the random stream."""
    return DataLoader(BATCHES, batch_size=None, generator=torch.Generator())


def small():
    return PatchGAN(width=4, layers=1)


def two_optimizer_loop(network, discriminator, *, kind, weight, penalty, accumulate, clip):
    """A GAN's training as one would write it without this package, both steps from the same weights."""
    loss = AdversarialLoss(kind)
    g_optimizer, d_optimizer = (
        torch.optim.Adam(network.parameters(), 1e-2),
        torch.optim.Adam(discriminator.parameters()),
    )
    d_optimizer.param_groups[0]["lr"] = 1e-4
    for index, batch in enumerate(BATCHES * 4):
        sharp, deblurred = batch["sharp"], network(batch["blurry"])
        discriminator.requires_grad_(False)
        g_loss = F.l1_loss(deblurred, sharp) + weight * loss.generator(discriminator(deblurred))
        (g_loss / accumulate).backward()
        discriminator.requires_grad_(True)
        fake = deblurred.detach()
        d_loss = loss.discriminator(discriminator(sharp), discriminator(fake))
        if penalty:
            d_loss = d_loss + penalty * gradient_penalty(discriminator, sharp, fake)
        (d_loss / accumulate).backward()
        if (index + 1) % accumulate == 0:
            clip_and_step(clip, (discriminator, d_optimizer), (network, g_optimizer))


@pytest.mark.parametrize(("accumulate", "clip"), [(1, None), (2, 0.05)])
@pytest.mark.parametrize(("kind", "penalty"), [("vanilla", 0.0), ("hinge", 0.0), ("wgan", 10.0)])
def test_training_equals_a_hand_written_loop_bit_for_bit(tmp_path, kind, penalty, accumulate, clip):
    network, discriminator = PlainNet(), small()
    expected = copy.deepcopy((network, discriminator))
    torch.manual_seed(1)  # the penalty's random places
    two_optimizer_loop(*expected, kind=kind, weight=0.1, penalty=penalty, accumulate=accumulate, clip=clip)
    module = Adversarial(network, discriminator, adversarial=kind, weight=0.1, gradient_penalty=penalty)
    run = trainer(tmp_path, accumulate_grad_batches=accumulate, gradient_clip_val=clip)
    torch.manual_seed(1)
    run.fit(module, fixed())
    assert run.global_step == 16 // accumulate
    assert_bit_equal(module.network, expected[0])
    assert_bit_equal(module.discriminator, expected[1])


def every_loss(network, reblur_net, discriminator, **options):
    torch.manual_seed(2)
    extra = {"vgg": WeightedLoss(VGGLoss(nn.Conv2d(3, 4, 3)), 0.3)}
    return DeblurTask(network, reblur_net, extra_losses=extra, discriminator=discriminator, **options)


def networks():
    return PlainNet(), ReblurNet(width=4), small()


@pytest.mark.parametrize("scales", [1, 3])
def test_every_loss_of_the_tables_at_once_equals_a_hand_written_loop(tmp_path, scales):
    """Reconstruction, reblurring, VGG and adversarial loss in double precision, by the paper's recipe."""
    network, reblur_net, _ = networks()
    if scales > 1:
        network = MultiScaleNet()
    # without InstanceNorm: the bias before one has no gradient but rounding errors, which Adam makes into steps
    discriminator = nn.Sequential(nn.Conv2d(3, 4, 4, stride=2), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 3))
    module = every_loss(network, reblur_net, discriminator, adversarial_weight=0.001).double()
    (vgg,) = module.extra_losses.values()
    batches = [{**batch, **{key: batch[key].double() for key in ("blurry", "sharp")}} for batch in BATCHES]

    network, reblur_net, discriminator = expected = copy.deepcopy((network, reblur_net, discriminator))
    optimizers = [torch.optim.Adam(net.parameters(), 1e-4) for net in expected]
    schedulers = [torch.optim.lr_scheduler.MultiStepLR(each, [8, 12, 14], 0.5) for each in optimizers]
    adversarial = AdversarialLoss("vanilla")
    for batch in batches * 4:
        blurry, sharp = batch["blurry"], batch["sharp"]
        deblurred, pseudo = network(blurry), network(sharp)
        deblurred, pseudo = (deblurred[-1], pseudo[-1]) if scales > 1 else (deblurred, pseudo)
        fixed, pseudo = deblurred.detach(), pseudo.detach()
        losses = (
            F.l1_loss(deblurred, sharp)
            + F.l1_loss(reblur_net(deblurred), reblur_net(sharp))
            + 0.3 * vgg(deblurred, sharp)
            + 0.001 * adversarial.generator(discriminator(deblurred)),
            F.l1_loss(reblur_net(fixed), blurry) + F.l1_loss(reblur_net(pseudo), pseudo),
            adversarial.discriminator(discriminator(sharp), discriminator(fixed)),
        )
        for net, loss in zip(expected, losses, strict=True):
            gradients = torch.autograd.grad(loss, list(net.parameters()), retain_graph=True)
            for parameter, gradient in zip(net.parameters(), gradients, strict=True):
                parameter.grad = gradient
        for optimizer, scheduler in zip(optimizers, schedulers, strict=True):
            optimizer.step()
            scheduler.step()

    run = trainer(tmp_path)
    run.fit(module, DataLoader(batches, batch_size=None))
    for found, wanted in zip((module.network, module.reblur, module.discriminator), expected, strict=True):
        torch.testing.assert_close(found.state_dict(), wanted.state_dict(), rtol=0, atol=1e-12)
    # the value that is logged is that of the paper's L_D with the added terms
    assert run.logged_metrics["train/loss"] == pytest.approx(losses[0].item(), abs=1e-6)
    assert run.logged_metrics["train/loss_vgg"] == pytest.approx(vgg(deblurred, sharp).item(), abs=1e-6)
    assert run.logged_metrics["train/loss_discriminator"] == pytest.approx(losses[2].item(), abs=1e-6)
    assert {"train/loss_adversarial", "train/loss_reblur", "lr-discriminator", "lr-reblur"} <= run.logged_metrics.keys()


@pytest.mark.parametrize("network_class", [PlainNet, DropoutNet])
def test_weight_zero_trains_as_without_the_mixin(tmp_path, network_class):
    network = network_class()
    plain = Plain(copy.deepcopy(network))
    torch.manual_seed(1)
    module = Adversarial(network, small(), weight=0)
    start = copy.deepcopy(module.discriminator)
    for each in (plain, module):
        torch.manual_seed(1)  # dropout's stream
        trainer(tmp_path).fit(each, loader())
    assert_bit_equal(module.network, plain.network)
    assert not torch.equal(module.discriminator.model[0].weight, start.model[0].weight)


def test_configuring_leaves_the_random_state_alone():
    network, before = PlainNet(), torch.get_rng_state()
    module = Adversarial(network)
    assert torch.equal(torch.get_rng_state(), before)
    assert sum(p.numel() for p in module.discriminator.parameters()) == 2_764_737


def test_stopped_in_mid_epoch_and_resumed_is_bit_equal(tmp_path):
    def run(module, ckpt_path=None, **flags):
        data = DemoDataModule(batch_size=2, crop=16, crops_per_photo=4, blur=ShakeBlur(5, 0.5), seed=1)
        flags = {"max_epochs": 2, "limit_val_batches": 0} | flags
        trainer(tmp_path, **flags).fit(module, data, ckpt_path=ckpt_path, weights_only=True)

    class StopAfterFour(L.Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 4:
                trainer.save_checkpoint(tmp_path / "stopped.ckpt")
                raise RuntimeError("the machine went down")

    nets = networks()
    whole = every_loss(*copy.deepcopy(nets))
    run(whole)
    with pytest.raises(RuntimeError, match="went down"):
        run(every_loss(*copy.deepcopy(nets)), callbacks=[StopAfterFour()])
    resumed = every_loss(*nets)
    run(resumed, ckpt_path=tmp_path / "stopped.ckpt")
    assert_bit_equal(resumed, whole)
    assert resumed._auxiliary.steps("discriminator") == resumed._auxiliary.steps("reblur") == 12

    checkpoint = torch.load(tmp_path / "stopped.ckpt", weights_only=True)
    assert {key.split(".")[0] for key in checkpoint["state_dict"]} == {"network", "reblur", "discriminator"}
    PlainNet().load_state_dict(strip_reblur(checkpoint))
    every_loss(*networks()).load_state_dict(checkpoint["state_dict"], strict=True)


def test_strip_finds_the_network_of_a_module_with_the_adversarial_mixin_alone(tmp_path):
    class Renamed(AdversarialLossMixin, L.LightningModule):
        def __init__(self):
            super().__init__()
            self.deblur = PlainNet()
            self.configure_adversarial(small(), network="deblur")

        def training_step(self, batch, batch_idx):
            return self.adversarial_loss(self.deblur(batch["blurry"]), batch["sharp"])

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), 1e-2)

    run = trainer(tmp_path, max_steps=1)
    run.fit(Renamed(), loader())
    run.save_checkpoint(tmp_path / "run.ckpt")
    PlainNet().load_state_dict(strip_reblur(tmp_path / "run.ckpt"))


@pytest.mark.parametrize("kind", ["vanilla", "wgan"])
def test_bfloat16_autocast(tmp_path, kind):
    module = every_loss(*networks(), adversarial=kind, gradient_penalty=1.0)
    before = copy.deepcopy(module.state_dict())
    trainer(tmp_path, precision="bf16-mixed").fit(module, loader())
    changed = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    assert all(value.isfinite().all() for value in module.state_dict().values())
    assert {"network.body.0.weight", "reblur.layers.0.weight", "discriminator.model.0.weight"} <= changed


def test_a_discriminator_of_ones_own(tmp_path):
    class TwoMaps(nn.Module):
        def __init__(self):
            super().__init__()
            self.maps = nn.ModuleList([nn.Conv2d(3, 1, 3), nn.Conv2d(3, 1, 5)])

        def forward(self, image):
            return [each(image) for each in self.maps]

    task = DeblurTask(PlainNet(), discriminator=TwoMaps(), adversarial=AdversarialLoss("hinge"), gradient_penalty=0.1)
    trainer(tmp_path, max_steps=2).fit(task, loader())
    assert task._auxiliary.steps("discriminator") == 2


# --- what is refused


def test_wrong_base_class_order():
    with pytest.raises(PluginError, match=r"class Wrong\(AdversarialLossMixin, LightningModule\)"):

        class Wrong(L.LightningModule, AdversarialLossMixin):
            pass

    with pytest.raises(PluginError, match=r"class Split\(AdversarialLossMixin, LightningModule\)"):

        class Split(ReblurLossMixin, L.LightningModule, AdversarialLossMixin):
            pass


def test_overridden_configure_callbacks_without_super(tmp_path):
    class Overridden(Adversarial):
        def configure_callbacks(self):
            return []

    with pytest.raises(PluginError, match="appended: discriminator would not be trained"):
        trainer(tmp_path).fit(Overridden(PlainNet(), small()), loader())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"network": "net"}, PluginError, "no submodule at 'net'"),
        ({"weight": -1}, ArgumentError, "`weight` must be at least 0 and finite, but is -1"),
        ({"gradient_penalty": -1}, ArgumentError, "must be at least 0"),
        ({"adversarial": "rgan"}, ArgumentError, "vanilla, hinge, lsgan, wgan"),
        ({"discriminator": 3}, ArgumentError, "must be an nn.Module, but is int"),
        ({"optimizer": 3}, ArgumentError, "write optimizer=lambda parameters: ..."),
    ],
)
def test_wrong_options(options, error, message):
    class Configured(AdversarialLossMixin, Plain):
        pass

    with pytest.raises(error, match=message):
        Configured(PlainNet()).configure_adversarial(**options)


def test_shared_parameters_and_a_second_call():
    network = PlainNet()
    with pytest.raises(ArgumentError, match="the deblurring and the discriminator network must not share"):
        Adversarial(network, nn.Sequential(network))
    module = Adversarial(PlainNet(), small())
    with pytest.raises(PluginError, match="is configure_adversarial called twice"):
        module.configure_adversarial()


def test_before_configure_adversarial():
    class Unconfigured(AdversarialLossMixin, Plain):
        pass

    with pytest.raises(PluginError, match=r"call `self.configure_adversarial\(\)` in `__init__`"):
        Unconfigured(PlainNet()).adversarial_loss(*torch.rand(2, 1, 3, 8, 8))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"reblur": WeightedLoss(nn.MSELoss())}, "one word that no other loss is logged by, but is 'reblur'"),
        ({"a.b": WeightedLoss(nn.MSELoss())}, "one word that no other loss is logged by, but is 'a.b'"),
        ({"mse": nn.MSELoss()}, r"'mse' must be a WeightedLoss\(loss, weight\), but is MSELoss"),
    ],
)
def test_wrong_extra_losses(extra, message):
    with pytest.raises(ArgumentError, match=message):
        DeblurTask(PlainNet(), extra_losses=extra)
