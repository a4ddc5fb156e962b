"""The translator's training against a hand-written GAN loop, what it keeps, what it refuses."""

from __future__ import annotations

import copy
import csv
import warnings

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

import reblurkit
from reblurkit.blur import BlurTransfer, ShakeBlur
from reblurkit.core.downloads import RemoteFile
from reblurkit.data import write_image
from reblurkit.data.sampling import seeded
from reblurkit.errors import ArgumentError, DownloadError, ShapeError
from reblurkit.losses import LayerFeatures, MultiScalePerceptualLoss
from reblurkit.metrics import NIQE, fit_pristine
from reblurkit.models import EfficientNetLiteFeatures, FullSize, PatchGAN, ReblurNet, UNet
from reblurkit.models.deblur.mimo_unet import MIMOUNet
from reblurkit.models.kernel_wizard import KernelWizard
from reblurkit.models.vgg import VGG_WEIGHTS
from reblurkit.plugins import (
    Blur2BlurTranslator,
    KernelWizardTask,
    ResultsWriter,
    TranslationWatch,
    UnpairedDataModule,
)
from tests.conftest import PlainNet
from tests.plugins.mixins.test_reblur import assert_bit_equal

CROP = 32


def generator(**options):
    return MIMOUNet(**{"blocks": 1, "width": 8, **options})


def critic():
    """Without InstanceNorm: the bias before one has rounding errors for a gradient, which Adam makes into steps."""
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 2))


def features():
    return nn.Conv2d(3, 4, 3, padding=1)


def translator(**options):
    options = {"generator": generator(), "discriminator": critic(), "perceptual": features(), **options}
    return Blur2BlurTranslator(**{"known_blur": ShakeBlur(5, 0.5), **options})


def batches(count=6, size=2, side=CROP, **extra):
    draw = torch.Generator().manual_seed(1)
    return [
        {key: torch.rand(size, 3, side, side, generator=draw) for key in ("blurry", "sharp", *extra)}
        for _ in range(count)
    ]


def trainer(tmp_path, **options):
    return L.Trainer(
        accelerator="cpu",
        default_root_dir=tmp_path,
        **{
            "max_epochs": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            **options,
        },
    )


def fit(module, tmp_path, data=None, **options):
    run = trainer(tmp_path, **options)
    run.fit(module, DataLoader(data or batches(), batch_size=None))
    return run


def pyramid(image):
    return [F.interpolate(image, size=CROP // k, mode="bilinear", align_corners=False) for k in (4, 2)] + [image]


def hand_written_loop(module, data, *, kind, weight, penalty_weight, reduction, rates):
    """What the slides and methods say, one line after the other."""
    G, D, phi = module.generator, module.discriminator, module.perceptual._features.network
    g_optimizer, d_optimizer = (
        torch.optim.Adam(net.parameters(), rate, betas=(0.5, 0.999)) for net, rate in zip((G, D), rates, strict=True)
    )
    steps = len(data)
    for step, batch in enumerate(data):
        for optimizer, rate in zip((g_optimizer, d_optimizer), rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * min(1, (steps - step) / (steps - steps // 3))
        blurry = batch["blurry"]
        with seeded((0, 2 * step, 0), blurry.device):
            fakes = G(blurry)
            reals = pyramid(ShakeBlur(5, 0.5)(batch["sharp"]).clamp(0, 1))
            # kernels of 5 pixels reach 2 pixels in from the border at full size, 1 at the others
            cut = [
                (image[..., c:-c, c:-c], fake[..., c:-c, c:-c])
                for c, image, fake in zip((1, 1, 2), reals, fakes, strict=True)
            ]
            d_loss = torch.zeros((), dtype=torch.float64)
            for real, fake in cut:
                real, fake = D(real), D(fake.detach())
                if kind == "hinge":
                    d_loss = d_loss + ((1 - real).clamp(min=0).mean() + (1 + fake).clamp(min=0).mean()) / 3
                else:
                    d_loss = d_loss - (real.sigmoid().log().mean() + (1 - fake.sigmoid()).log().mean()) / 3
            share = torch.rand(len(blurry), 1, 1, 1, dtype=blurry.dtype)
            real, fake = cut[-1]
            norms = []
            for index in range(len(blurry)):  # the penalty image by image
                mixed = real[index] + share[index] * (fake.detach()[index] - real[index])
                mixed = mixed[None].requires_grad_()
                (gradient,) = torch.autograd.grad(D(mixed).sum(), mixed, create_graph=True)
                norms.append((gradient.norm() - 1) ** 2)
            d_optimizer.zero_grad()
            (d_loss + penalty_weight * torch.stack(norms).mean()).backward()
            d_optimizer.step()

            g_loss = torch.zeros((), dtype=torch.float64)
            for _, fake in cut:
                scores = D(fake)
                g_loss = g_loss - (scores if kind == "hinge" else scores.sigmoid().log()).mean() / 3
            content = sum(
                (phi(out) - phi(target)).abs().mean() for out, target in zip(fakes, pyramid(blurry), strict=True)
            )
            g_optimizer.zero_grad()
            (g_loss + weight * content / (3 if reduction == "mean" else 1)).backward()
            g_optimizer.step()


@pytest.mark.parametrize(("kind", "reduction"), [("hinge", "sum"), ("vanilla", "mean")])
def test_training_equals_a_hand_written_loop(tmp_path, kind, reduction):
    data = [{key: image.double() for key, image in batch.items()} for batch in batches()]
    perceptual = MultiScalePerceptualLoss(features(), reduction=reduction)
    if reduction == "sum":  # what a bare feature module means
        perceptual = perceptual._features.network
    module = translator(
        perceptual=perceptual, adversarial=kind, gradient_penalty=0.5, lr=1e-2, discriminator_lr=1e-3
    ).double()
    module.perceptual._features.network.double()
    expected = copy.deepcopy(module)
    hand_written_loop(
        expected, data, kind=kind, weight=0.8, penalty_weight=0.5, reduction=reduction, rates=(1e-2, 1e-3)
    )
    run = fit(module, tmp_path, data)
    assert run.global_step == 2 * len(data)  # both optimizers count
    for net in ("generator", "discriminator"):
        for one, other in zip(getattr(module, net).parameters(), getattr(expected, net).parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
    assert not torch.equal(module.generator.ConvsOut[0].main[0].weight, generator().ConvsOut[0].main[0].weight)


@pytest.mark.parametrize("size", [1, 4])
def test_the_gradient_penalty_of_a_linear_discriminator(tmp_path, size):
    """Its gradient is its weight, wherever the penalty looks: (|w| - 1)^2."""
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * CROP * CROP, 1))
    nn.init.constant_(linear[1].weight, 0.05)
    module = translator(generator=PlainNet(), discriminator=linear, known_blur=nn.Identity(), gradient_penalty=1.0)
    run = fit(module, tmp_path, batches(1, size))
    expected = ((3 * CROP * CROP) ** 0.5 * 0.05 - 1) ** 2
    torch.testing.assert_close(run.logged_metrics["train/gradient_penalty"], torch.tensor(expected))


def test_the_papers_networks():
    module = Blur2BlurTranslator()
    counts = [sum(p.numel() for p in net.parameters()) for net in (module.generator, module.discriminator)]
    assert counts == [6_807_171, 2_764_737]
    with torch.no_grad():
        image = torch.rand(1, 3, 256, 256)
        outputs = module.generator(image)
        assert [tuple(each.shape[2:]) for each in outputs] == [(64, 64), (128, 128), (256, 256)]
        assert [tuple(each.shape) for each in module.discriminator(outputs)] == [(1, 1, s, s) for s in (6, 14, 30)]
    assert torch.equal(outputs[-1], image), "training starts from the identity"
    assert module.adversarial.kind == "hinge"
    assert module.perceptual.reduction == "sum"
    assert "Blur2BlurTranslator" in dir(reblurkit)


def test_the_identity_learns_nevertheless(tmp_path):
    module = translator(generator=generator(identity=True))
    fit(module, tmp_path)
    assert all(parameter.abs().sum() > 0 for parameter in module.generator.parameters())


def test_known_pairs_serve_where_no_known_blur_is_given(tmp_path):
    seen = []
    module = translator(known_blur=None)
    module.discriminator.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].detach()))
    data = batches(1, known_blurry=1)
    fit(module, tmp_path, data)
    assert torch.equal(seen[2], data[0]["known_blurry"])


class Stop(L.Callback):
    """Saves a checkpoint and stops like a power cut after a batch."""

    def __init__(self, after, path):
        self.after, self.path = after, path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == 2 * self.after:
            trainer.save_checkpoint(self.path)
            raise RuntimeError("power cut")


def make_folders(root, *names, count=3, size=40):
    for name in names:
        for index in range(count):
            write_image(torch.rand(3, size, size + 8), root / name / f"{index}.png")


@pytest.mark.parametrize("average", [False, True])
def test_a_resumed_run_is_bit_equal(tmp_path, average):
    make_folders(tmp_path, "trainA", "trainB", count=4)

    def run(callback=None, ckpt_path=None):
        torch.manual_seed(0)
        module = translator(generator=generator(dropout=0.2), gradient_penalty=0.1, lr=1e-2)
        callbacks = [*([EMAWeightAveraging(decay=0.9)] if average else []), *([callback] if callback else [])]
        data = UnpairedDataModule(tmp_path, crop=CROP, batch_size=2, num_workers=0)
        torch.manual_seed(len(callbacks))  # whatever else was drawn before
        trainer(tmp_path, max_epochs=3, limit_val_batches=0, callbacks=callbacks).fit(
            module, data, ckpt_path=ckpt_path, weights_only=True
        )
        return module

    whole, path = run(), tmp_path / "stopped.ckpt"
    with pytest.raises(RuntimeError, match="power cut"):
        run(Stop(3, path))
    resumed = run(ckpt_path=path)
    assert_bit_equal(resumed, whole)


def test_compose_takes_networks_only():
    with pytest.raises(ArgumentError, match=r"must be a torch\.nn\.Module, but is str"):
        translator().compose("network.pth")


def test_flat_crops_have_a_contrast(tmp_path):
    flat = {"blurry": torch.ones(1, 3, 32, 32), "sharp": torch.rand(1, 3, 32, 32)}
    module, run = translator(generator=ReblurNet(width=4, identity=True)), trainer(tmp_path, max_steps=2)
    run.fit(module, DataLoader([flat], batch_size=None))
    assert run.logged_metrics["train/contrast"].item() == 1


def test_prediction_without_a_deblurring_network_says_so(tmp_path):
    data = DataLoader([{"blurry": torch.rand(1, 3, 32, 32), "name": ["a"]}], batch_size=None)
    with pytest.warns(UserWarning, match="translated, and still blurry"):
        trainer(tmp_path).predict(translator(), data)


def test_compose_is_a_plain_module_that_exports(tmp_path):
    module, deblur = translator(), UNet(1, (4, 4, 4))
    composed = module.compose(deblur)
    image = torch.rand(1, 3, 24, 32)
    expected = deblur(module.generator(image)[-1].clamp(0, 1))
    torch.testing.assert_close(composed(image), expected, rtol=0, atol=0)
    assert not composed.training
    assert composed.multiple == 4
    assert not isinstance(composed, L.LightningModule)
    exported = torch.export.export(composed, (image,)).module()
    torch.testing.assert_close(exported(image), expected)
    fit(module, tmp_path)  # the composed network keeps the generator that it was made with
    torch.testing.assert_close(composed(image), expected, rtol=0, atol=0)


def test_measures_of_held_out_images(tmp_path):
    """PSNR of both ways to deblur, content, colour and a score without reference, each worked out again."""

    class Brighter(nn.Module):
        def forward(self, image):
            return image + torch.tensor([0.0, 0.02, 0.01])[:, None, None]

    class Darker(nn.Module):
        def forward(self, image):
            return [image, image - 0.05]

    score = NIQE(fit_pristine(torch.rand(2, 3, 192, 192), sharpness=0.0))
    module = translator(generator=Brighter(), deblur_network=Darker(), score=score)
    blurry, sharp = 0.2 + 0.5 * torch.rand(2, 2, 3, 192, 192)
    data = [
        {"blurry": one[None], "sharp": other[None], "name": ["x"]} for one, other in zip(blurry, sharp, strict=True)
    ]
    writer = ResultsWriter()
    run = trainer(tmp_path, callbacks=[writer])
    run.test(module, DataLoader(data, batch_size=None), verbose=False)
    logged = {name.removeprefix("test/"): value.item() for name, value in run.logged_metrics.items()}
    first, second = csv.DictReader(writer.path.open())
    for name, value in logged.items():
        assert (float(first[name]) + float(second[name])) / 2 == pytest.approx(value, abs=1e-3)

    def psnr(image):
        return (-10 * ((image - sharp) ** 2).mean((1, 2, 3)).log10()).mean().item()

    deblurred = Brighter()(blurry) - 0.05
    assert logged["psnr"] == pytest.approx(psnr(deblurred), abs=1e-4)
    assert logged["psnr_alone"] == pytest.approx(psnr(blurry - 0.05), abs=1e-4)
    assert logged["psnr_blurry"] == pytest.approx(psnr(blurry), abs=1e-4)
    assert logged["colour_shift"] == pytest.approx(0.02 * 255, abs=1e-3)
    assert 0.9 < logged["content_ssim"] < 1
    score.update(deblurred)
    assert logged["score"] == pytest.approx(score.compute().item(), rel=1e-4)
    assert not any("deblur" in key for key in module.state_dict()), "the deblurring network is not saved"
    (prediction,) = trainer(tmp_path).predict(module, DataLoader(data[:1], batch_size=None))
    torch.testing.assert_close(prediction["deblurred"], deblurred[:1])


@pytest.mark.parametrize("name", ["generator", "discriminator", "perceptual", "known_blur", "deblur_network"])
def test_what_is_no_network_is_named(name):
    with pytest.raises(ArgumentError, match=f"^`{name}` must be an nn.Module, but is 3"):
        Blur2BlurTranslator(**{name: 3})


def windows(**means):
    usual = {"contrast": 1.0, "colour_shift": 0.1, "loss_discriminator": 2.0}
    return [{name: torch.tensor(value) for name, value in (usual | means).items()}] * 3


@pytest.mark.parametrize(
    ("means", "message"),
    [
        ({"contrast": 0.3}, "0.3 times the contrast"),
        ({"contrast": float("nan")}, "collapsed"),
        ({"colour_shift": 2.5}, "2.5 grey levels off"),
        ({"loss_discriminator": 0.01}, "tells translated images and real ones apart"),
    ],
)
def test_a_training_that_goes_wrong_is_warned_of_once(tmp_path, means, message):
    watch, module, run = TranslationWatch(window=3), translator(), trainer(tmp_path)

    def watched(steps):
        for step in steps:
            watch.on_train_batch_end(run, module, step, None, 0)

    with pytest.warns(UserWarning, match=message) as caught:
        watched(windows(**means) * 2)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        watched(windows())


def test_a_translator_brings_the_watch(tmp_path):
    module = translator(generator=nn.Conv2d(3, 3, 1))
    nn.init.constant_(module.generator.weight, 0.0)
    nn.init.constant_(module.generator.bias, 0.9)
    module._watch.window = 2
    with pytest.warns(UserWarning, match="the generator has collapsed"):
        fit(module, tmp_path)


def test_bad_options():
    with pytest.raises(ArgumentError, match="`lr` must be a finite number greater than 0"):
        translator(lr=0.0)
    with pytest.raises(ArgumentError, match="perceptual_weight"):
        translator(perceptual_weight=-1.0)
    with pytest.raises(ArgumentError, match="belong to a `deblur_network`"):
        translator(score=NIQE(fit_pristine(torch.rand(1, 3, 192, 192), sharpness=0.0)))
    with pytest.raises(ArgumentError, match="hinge"):
        translator(adversarial="least squares")
    with pytest.raises(ArgumentError, match=r"has: enter, .*blocks"):
        LayerFeatures(UNet(1, (4, 4, 4)), ["layer9"])


def test_bad_batches(tmp_path):
    wizard = KernelWizard(4, 4, front_blocks=0, back_blocks=0)
    with pytest.raises(ArgumentError, match=r"known pairs: add them to the data \(trainC, trainD\), or use"):
        fit(translator(known_blur=BlurTransfer(wizard)), tmp_path)
    pairs = batches(1, known_blurry=1, known_sharp=1)
    with pytest.raises(ShapeError, match=r"divide by 128.*256 x 256.*or use ShakeBlur"):
        fit(translator(known_blur=BlurTransfer(wizard)), tmp_path, pairs)
    with pytest.raises(ArgumentError, match=r"must lie in \[0, 1\]"):
        fit(translator(), tmp_path, [{key: 255 * image for key, image in batches(1)[0].items()}])
    with pytest.raises(ShapeError, match=r"32 x 32 leaves it 0 x 0.*, without the 16 pixels at every side"):
        fit(translator(known_blur=ShakeBlur(33)), tmp_path)
    with pytest.raises(ShapeError, match="must keep the shape"):
        fit(translator(generator=nn.Conv2d(3, 3, 2, 2)), tmp_path)


@pytest.mark.parametrize(
    ("size", "small", "advised"), [(31, 64, 128), (31, 124, 128), (5, 64, 104), (None, 64, 96), (33, 16, 128)]
)
def test_the_smallest_crop_that_leaves_the_discriminator_enough(tmp_path, size, small, advised):
    def train(crop):
        blur = None if size is None else ShakeBlur(size, 0.5)
        data = batches(1, 1, crop, known_blurry=1)
        fit(translator(discriminator=PatchGAN(4), known_blur=blur), tmp_path, data)

    for crop in (small, advised - 4):  # which is the next smaller that the generator takes
        with pytest.raises(ShapeError, match=f"use a `crop` of at least {advised}"):
            train(crop)
    train(advised)
    with pytest.raises(ShapeError, match="leaves it 8 x 8 at its smallest scale, 1/4, without the 15 pixels"):
        fit(translator(discriminator=PatchGAN(4), known_blur=ShakeBlur(31)), tmp_path, batches(1, side=64))


def test_content_by_efficientnet(tmp_path):
    module = translator(perceptual=EfficientNetLiteFeatures(stages=[1, 2]))
    run = fit(module, tmp_path, batches(2))
    assert run.logged_metrics["train/loss_perceptual"] > 0
    assert {key.split(".")[0] for key in module.state_dict()} == {"generator", "discriminator"}


def test_vgg_that_cannot_be_had_is_answered_with_advice(tmp_path, hub_cache, monkeypatch, closed_port):
    remote = RemoteFile(f"http://127.0.0.1:{closed_port}/vgg16.pth", "0" * 64)
    monkeypatch.setitem(VGG_WEIGHTS, "vgg16", remote)
    module = translator(perceptual=MultiScalePerceptualLoss())
    with pytest.raises(DownloadError, match=r"LayerFeatures\(network, layers\)"):
        fit(module, tmp_path)


def test_kernel_wizard_task_learns_to_give_blur_back(tmp_path):
    wizard = KernelWizard(4, 8, front_blocks=1, back_blocks=1)
    task = KernelWizardTask(wizard, lr=1e-3)
    sharp = torch.rand(1, 3, 256, 256)
    data = [{"sharp": sharp, "blurry": F.avg_pool2d(sharp, 5, 1, 2), "name": ["x"]}] * 6
    before = task.loss(task(sharp, data[0]["blurry"]), data[0]["blurry"]).item()
    run = fit(task, tmp_path, data)
    assert run.logged_metrics["train/loss"] < before
    whole = [{key: F.pad(data[0][key], (10, 7, 3, 2)) for key in ("blurry", "sharp")}]
    writer = ResultsWriter()
    run = trainer(tmp_path, callbacks=[writer])
    run.test(task, DataLoader(whole, batch_size=None), verbose=False)
    (row,) = csv.DictReader(writer.path.open())
    for name in ("psnr", "psnr_sharp"):
        assert float(row[name]) == pytest.approx(run.logged_metrics[f"test/{name}"].item(), abs=1e-3)
    with torch.no_grad():
        back = FullSize(wizard, 128)(whole[0]["sharp"], whole[0]["blurry"])
        error = ((back.clamp(0, 1) - whole[0]["blurry"]) ** 2).mean()
    torch.testing.assert_close(
        run.logged_metrics["test/psnr"], -10 * error.log10(), rtol=0, atol=1e-3, check_dtype=False
    )
    with pytest.raises(ArgumentError, match="vae=False"):
        KernelWizardTask(KernelWizard(4, 8, vae=True, front_blocks=0, back_blocks=0))
    small = [{key: data[0][key][..., :99] for key in ("blurry", "sharp")}]
    assert trainer(tmp_path).test(task, DataLoader(small, batch_size=None), verbose=False)
