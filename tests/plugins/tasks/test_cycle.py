"""CycleGAN and DualGAN against hand-written loops, what they keep, what they refuse."""

from __future__ import annotations

import copy
import csv
from itertools import chain
from pathlib import Path

import lightning.pytorch as L
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

import reblurkit
from reblurkit.cli import main
from reblurkit.data.sampling import seeded
from reblurkit.errors import ArgumentError, ShapeError
from reblurkit.metrics import NIQE, fit_pristine
from reblurkit.models import FullSize, ReblurNet
from reblurkit.plugins import CycleTranslator, ImageLogger, ResultsWriter, UnpairedDataModule
from reblurkit.plugins.trained_network import load_networks
from tests.conftest import MultiScaleNet, PlainNet
from tests.plugins.mixins.test_reblur import assert_bit_equal
from tests.plugins.tasks.test_blur2blur import batches, critic, fit, make_folders, trainer

NETS = ("network", "blur_network", "discriminator", "blurry_discriminator")


def rival(**options):
    return CycleTranslator(**{"network": PlainNet(), "discriminator": critic(), **options})


def test_the_papers_networks():
    """11.378 and 2.765 million parameters: CycleGAN's with nine residual blocks, and its 70 x 70 PatchGAN."""
    module = CycleTranslator()
    assert [sum(p.numel() for p in getattr(module, net).parameters()) for net in NETS] == [
        11_378_179,
        11_378_179,
        2_764_737,
        2_764_737,
    ]
    assert not any(isinstance(each, nn.Dropout) and each.p for each in module.network.modules())
    starts = [next(net.parameters()) for net in (module.network, module.blur_network)]
    assert not torch.equal(*starts), "two networks, each with random weights of its own"
    assert "CycleTranslator" in dir(reblurkit)


class HandWrittenPool:
    """As CycleGAN's program does it, with the draws in the order of this package."""

    def __init__(self, size):
        self.size, self.images = size, []

    def query(self, images):
        out = []
        for image in images.detach():
            if len(self.images) < self.size:
                self.images.append(image)
                out.append(image)
            elif torch.rand(()) >= 0.5:
                index = int(torch.randint(self.size, ()))
                out.append(self.images[index])
                self.images[index] = image
            else:
                out.append(image)
        return torch.stack(out)


def cyclegan_by_hand(module, data, *, cycle, identity, lr, pool):
    F, G, D_S, D_B = (getattr(module, net) for net in NETS)
    g_optimizer = torch.optim.Adam(chain(F.parameters(), G.parameters()), lr, betas=(0.5, 0.999))
    d_optimizer = torch.optim.Adam(chain(D_S.parameters(), D_B.parameters()), lr, betas=(0.5, 0.999))
    pools, steps = [HandWrittenPool(pool), HandWrittenPool(pool)], len(data)
    for step, batch in enumerate(data):
        for optimizer in (g_optimizer, d_optimizer):
            optimizer.param_groups[0]["lr"] = lr * min(1, (steps - step) / (steps - steps // 2))
        B, S = batch["blurry"], batch["sharp"]
        with seeded((0, 2 * step, 0), B.device):
            fake_S, fake_B = F(B), G(S)
            old_S, old_B = pools[0].query(fake_S), pools[1].query(fake_B)
            d_loss = ((D_S(S) - 1) ** 2).mean() + (D_S(old_S) ** 2).mean()
            d_loss = d_loss + ((D_B(B) - 1) ** 2).mean() + (D_B(old_B) ** 2).mean()
            d_optimizer.zero_grad()
            d_loss.backward()
            d_optimizer.step()
            loss = ((D_S(fake_S) - 1) ** 2).mean() + ((D_B(fake_B) - 1) ** 2).mean()
            loss = loss + cycle * ((G(fake_S) - B).abs().mean() + (F(fake_B) - S).abs().mean())
            loss = loss + identity * ((F(S) - S).abs().mean() + (G(B) - B).abs().mean())
            g_optimizer.zero_grad()
            loss.backward()
            g_optimizer.step()


def dualgan_by_hand(module, data, *, cycle, lr, critic_steps):
    F, G, D_S, D_B = (getattr(module, net) for net in NETS)
    critics = [*D_S.parameters(), *D_B.parameters()]
    g_optimizer = torch.optim.RMSprop([*F.parameters(), *G.parameters()], lr, alpha=0.9)
    d_optimizer = torch.optim.RMSprop(critics, lr, alpha=0.9)
    for batch in data:
        B, S = batch["blurry"], batch["sharp"]
        for _ in range(critic_steps):
            d_loss = D_S(F(B).detach()).mean() - D_S(S).mean() + D_B(G(S).detach()).mean() - D_B(B).mean()
            d_optimizer.zero_grad()
            d_loss.backward()
            d_optimizer.step()
            for parameter in critics:
                parameter.data.clamp_(-0.01, 0.01)
        loss = -D_S(F(B)).mean() - D_B(G(S)).mean()
        loss = loss + cycle * ((G(F(B)) - B).abs().mean() + (F(G(S)) - S).abs().mean())
        g_optimizer.zero_grad()
        loss.backward()
        g_optimizer.step()


def doubles(count):
    return [{key: image.double() for key, image in batch.items()} for batch in batches(count)]


def assert_same(module, expected):
    for net in NETS:
        for one, other in zip(getattr(module, net).parameters(), getattr(expected, net).parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


def test_cyclegan_equals_a_hand_written_loop(tmp_path):
    data = doubles(8)
    module = rival(blur_network=ReblurNet(width=4), pool=3, lr=1e-3).double()
    expected = copy.deepcopy(module)
    cyclegan_by_hand(expected, data, cycle=20.0, identity=10.0, lr=1e-3, pool=3)
    run = fit(module, tmp_path, data)
    assert run.global_step == 2 * len(data)
    assert_same(module, expected)


def test_dualgan_equals_a_hand_written_loop(tmp_path):
    data = doubles(5)
    module = rival(form="dualgan", critic_steps=3, lr=1e-3).double()
    expected = copy.deepcopy(module)
    dualgan_by_hand(expected, data, cycle=200.0, lr=1e-3, critic_steps=3)
    run = fit(module, tmp_path, data)
    assert run.global_step == 4 * len(data)
    assert_same(module, expected)
    assert max(p.abs().max() for p in module.discriminator.parameters()) <= 0.01


def test_the_recipes_of_the_papers():
    cycle, dual = rival(), rival(form="dualgan")
    # L1 in [0, 1] is half of that in [-1, 1]: CycleGAN's lambda of 10 and half of it, DualGAN's least
    assert (cycle.recipe.cycle_weight / 2, cycle.recipe.identity_weight / 2, cycle.recipe.pool) == (10, 5, 50)
    assert (dual.recipe.cycle_weight / 2, dual.recipe.identity_weight, dual.recipe.pool) == (100, 0, 0)
    assert (cycle.recipe.lr, dual.recipe.lr) == (2e-4, 5e-5)
    assert (cycle.adversarial.kind, dual.adversarial.kind) == ("lsgan", "wgan")


def test_losses_worked_out_by_hand(tmp_path):
    """Networks that add a constant, discriminators that return means: every term is a number."""

    class Shift(nn.Module):
        def __init__(self, by):
            super().__init__()
            self.by = nn.Parameter(torch.tensor(by))

        def forward(self, image):
            return image + self.by

    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.tensor(1.0))

        def forward(self, image):
            return self.factor * image.mean((1, 2, 3))

    data = [{"blurry": torch.full((1, 3, 8, 8), 0.4), "sharp": torch.full((1, 3, 8, 8), 0.7)}]
    module = rival(network=Shift(0.1), blur_network=Shift(-0.3), discriminator=Mean(), lr=1e-12)
    logged = fit(module, tmp_path, data).logged_metrics
    fake_sharp, fake_blurry = 0.5, 0.4
    expected = {
        "loss_adversarial": (1 - fake_sharp) ** 2 + (1 - fake_blurry) ** 2,
        "loss_cycle": 0.2 + 0.2,
        "loss_identity": 0.1 + 0.3,
        "loss_discriminator": (1 - 0.7) ** 2 + fake_sharp**2 + (1 - 0.4) ** 2 + fake_blurry**2,
        "score_real": (0.7 + 0.4) / 2,
        "score_fake": (fake_sharp + fake_blurry) / 2,
        "contrast": 1.0,
        "colour_shift": 0.1 * 255,
    }
    assert {f"train/{name}" for name in expected} == {name for name in logged if name.startswith("train/")}
    for name, value in expected.items():
        assert logged[f"train/{name}"].item() == pytest.approx(value, rel=1e-5), name


class PowerCutError(Exception):
    pass


@pytest.mark.parametrize("form", ["cyclegan", "dualgan"])
def test_a_resumed_run_is_bit_equal(tmp_path, form):
    make_folders(tmp_path, "trainA", "trainB", count=4)

    class Stop(L.Callback):
        def on_train_batch_end(self, run, module, outputs, batch, batch_idx):
            if run.current_epoch == 1 and batch_idx == 0:
                run.save_checkpoint(tmp_path / "stopped.ckpt")
                raise PowerCutError

    def run(callbacks=(), ckpt_path=None):
        torch.manual_seed(0)
        module = rival(form=form, pool=3, lr=1e-3)
        data = UnpairedDataModule(tmp_path, known_blurry=None, known_sharp=None, crop=32, batch_size=2, num_workers=0)
        torch.manual_seed(len(callbacks))
        trainer(tmp_path, max_epochs=3, limit_val_batches=0, callbacks=[*callbacks]).fit(
            module, data, ckpt_path=ckpt_path, weights_only=True
        )
        return module

    whole = run()
    with pytest.raises(PowerCutError):
        run([Stop()])
    resumed = run(ckpt_path=tmp_path / "stopped.ckpt")
    assert_bit_equal(resumed, whole)
    for name, pool in whole._pools.items():
        assert all(map(torch.equal, pool.images, resumed._pools[name].images)), name
        assert len(pool.images) == len(resumed._pools[name].images) == 3


def test_it_ends_in_a_picture_and_in_numbers(tmp_path):
    blurry, sharp = 0.2 + 0.5 * torch.rand(2, 2, 3, 192, 192)
    data = [
        {"blurry": one[None], "sharp": other[None], "name": ["x"]} for one, other in zip(blurry, sharp, strict=True)
    ]
    score = NIQE(fit_pristine(torch.rand(2, 3, 192, 192), sharpness=0.0))
    module = rival(network=MultiScaleNet(), score=score)
    run = trainer(tmp_path, callbacks=[ImageLogger()])
    run.fit(module, DataLoader(batches(1), batch_size=None), DataLoader(data, batch_size=None))
    (picture,) = tmp_path.rglob("val-epoch=0.png")
    assert Image.open(picture).width == 4 * (360 + 8) + 8  # blurry, deblurred, blurred again, sharp
    writer = ResultsWriter()
    run = trainer(tmp_path, callbacks=[writer])
    run.test(module, DataLoader(data, batch_size=None), verbose=False)
    logged = {name.removeprefix("test/"): value.item() for name, value in run.logged_metrics.items()}
    with torch.no_grad():
        deblurred = module.network(blurry)[-1].clamp(0, 1)
    expected = (-10 * ((deblurred - sharp) ** 2).mean((1, 2, 3)).log10()).mean().item()
    assert logged["psnr"] == pytest.approx(expected, abs=1e-3)
    assert {"ssim", "psnr_blurry", "content_ssim", "colour_shift", "score"} <= logged.keys()
    assert "psnr_alone" not in logged
    rows = list(csv.DictReader(writer.path.open()))
    assert sum(float(row["psnr"]) for row in rows) / 2 == pytest.approx(logged["psnr"], abs=1e-3)
    (prediction,) = trainer(tmp_path).predict(module, DataLoader(data[:1], batch_size=None))
    torch.testing.assert_close(prediction["deblurred"], deblurred[:1])


def test_compose_is_the_plain_network(tmp_path):
    module = rival()
    composed, image = module.compose(), torch.rand(1, 3, 33, 21)
    before = module.network(image)
    assert not composed.training
    fit(module, tmp_path)
    assert torch.equal(composed(image), before)
    assert torch.equal(FullSize(module.network)(image), module(image))


def test_bad_options(tmp_path):
    with pytest.raises(ArgumentError, match="must be cyclegan or dualgan, but is 'stargan'"):
        rival(form="stargan")
    with pytest.raises(ArgumentError, match="`cycle_weight` must be at least 0"):
        rival(cycle_weight=-1.0)
    with pytest.raises(ArgumentError, match="`critic_steps` must be a whole number"):
        rival(critic_steps=0)
    with pytest.raises(ArgumentError, match=r"must be an nn\.Module, but is 3"):
        CycleTranslator(3)
    same = PlainNet()
    with pytest.raises(ArgumentError, match="must not share parameters"):
        CycleTranslator(same, same)
    with pytest.raises(ArgumentError, match="keys 'blurry', 'sharp', but is"):
        fit(rival(), tmp_path, [{"blurry": torch.rand(1, 3, 32, 32)}])
    with pytest.raises(ShapeError, match="must keep the shape"):
        fit(rival(network=nn.Conv2d(3, 3, 2, 2)), tmp_path)


@pytest.mark.parametrize("name", ["cyclegan", "dualgan"])
def test_from_a_configuration_to_a_network(tmp_path, name, monkeypatch):
    """The table's own files, with small networks: fit, a picture, and the network by its checkpoint."""
    config = Path(reblurkit.__file__).parents[1] / "examples" / "configs" / "blur2blur_table" / f"{name}.yaml"
    monkeypatch.chdir(tmp_path)
    make_folders(tmp_path / "DATA", "trainA", "trainB", "testA", "testB", size=64)
    small = ["--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--data.root=DATA", "--data.crop=32"]
    small += ["--data.num_workers=0", "--data.val_sharp=testB", "--trainer.default_root_dir=run"]
    small += ["--trainer.enable_progress_bar=false", "--trainer.log_every_n_steps=1"]
    small += ["--trainer.check_val_every_n_epoch=1", "--model.discriminator.class_path=PatchGAN"]
    small += ["--model.discriminator.width=4", "--model.discriminator.layers=1"]
    small += ["--model.network.class_path=DeblurGAN", "--model.network.blocks=1", "--model.network.width=4"]
    assert main(["fit", "--config", str(config), *small]) == 0
    assert len(list(tmp_path.rglob("val-epoch=0.png"))) == 1
    (checkpoint,) = tmp_path.rglob("last.ckpt")
    networks = load_networks(checkpoint=str(checkpoint))
    assert networks.network(torch.rand(1, 3, 32, 32)).shape == (1, 3, 32, 32)
