"""Blur2Blur: translates the blur of an unknown camera into blur that a trained network removes."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric

from reblurkit.core.calls import Frozen, check_two_networks
from reblurkit.core.checks import named_as
from reblurkit.core.numbers import check_not_negative, check_positive
from reblurkit.errors import ArgumentError, DownloadError
from reblurkit.losses.adversarial import AdversarialKind, AdversarialLoss, gradient_penalty
from reblurkit.losses.perceptual import MultiScalePerceptualLoss
from reblurkit.models.composed import Composed
from reblurkit.models.deblur.mimo_unet import MIMOUNet
from reblurkit.models.full_size import FullSize
from reblurkit.models.patchgan import PatchGAN
from reblurkit.models.starting_weights import start_from
from reblurkit.plugins.crops import check_room
from reblurkit.plugins.schedules import OverTraining, constant_then_linear
from reblurkit.plugins.tasks.unpaired import UnpairedTask, Versions, changes, held_fixed, mean_score, outputs_of


class Blur2BlurTranslator(UnpairedTask):
    """Learns from unpaired images to turn the blur of a camera into blur that a trained network removes.

    Pham et al., *Blur2Blur: Blur Conversion for Unsupervised Image Deblurring on Unknown Domains* (CVPR 2024). A
    generator G keeps the content of a blurry image y,

        L_G = L_adv(G(y)) + lambda_rec L_rec(G(y), y),    L_D = L_adv(real, G(y)) + lambda_grad L_grad,

    while a discriminator compares it, at three sizes with one set of weights, with images of known blur. ``compose``
    puts a deblurring network behind it. ``docs/methods/blur2blur.md`` tells how to get there with a camera's images.

    Where the slides leave a choice, the authors' program decides: hinge loss, lambda_rec = 0.8 on the sum of L_rec
    over the sizes (the slides have a mean; ``perceptual=MultiScalePerceptualLoss()`` is that), lambda_grad = 1e-4 on
    the full size, Adam with beta 0.5 and 0.999, the discriminator's step first, the learning rate constant for a third
    of the training and then linear to zero. Different here: the generator starts as the identity; the discriminator's
    loss is the papers' sum of both halves, not its half; the learning rate falls every step, not every epoch.

    Optimization is manual: ``trainer.global_step`` and ``max_steps`` count both optimizers, two a batch, and Lightning
    refuses ``gradient_clip_val`` and ``accumulate_grad_batches``. A resumed run is bit-equal.

    Batches are dicts: for training ``blurry`` and ``sharp`` of the target camera, unpaired, and ``known_blurry`` and
    ``known_sharp``, pairs of the known blur, where ``known_blur`` asks for them; for validation and tests ``blurry``
    and, where there is one, its ``sharp``; for prediction ``blurry`` and ``name``.

    Training logs ``train/loss_adversarial``, ``loss_perceptual``, ``loss_discriminator``, ``gradient_penalty``,
    ``score_real`` and ``score_fake`` (the discriminator's mean scores), ``contrast`` and ``colour_shift``, all without
    weights; :class:`reblurkit.plugins.TranslationWatch` warns when they say that the training goes wrong. Over
    validation and test images: ``content_ssim`` (translated to blurry), ``colour_shift`` in grey levels; with a
    ``deblur_network`` and sharp images ``psnr`` and ``ssim`` of both networks, ``psnr_alone`` and ``ssim_alone`` of the
    deblurring network on the blurry image, ``psnr_blurry`` and ``ssim_blurry``; and ``score``.

    Args:
        generator: Maps images ``(B, 3, H, W)`` to the same, or to a list from coarse to fine; default
            ``MIMOUNet(identity=True)``.
        discriminator: Maps images to scores without an activation; default ``PatchGAN()``.
        perceptual: A module that maps images to a list of feature maps, for instance
            :class:`reblurkit.models.EfficientNetLiteFeatures`, or :class:`reblurkit.losses.LayerFeatures` of the
            deblurring network; or the whole loss, called with the generator's outputs and its input; default
            ``MultiScalePerceptualLoss(reduction="sum")`` with VGG-16, whose weights are downloaded when training
            starts.
        perceptual_weight: lambda_rec.
        gradient_penalty: lambda_grad.
        adversarial: An :class:`reblurkit.losses.AdversarialLoss` or its kind; default ``"hinge"``, ``"vanilla"`` is the
            slides'.
        known_blur: Blurs the target camera's sharp images as the discriminator's real ones:
            :class:`reblurkit.blur.ShakeBlur`, which needs no pairs (give it no seed of its own, which would not be
            resumed), or :class:`reblurkit.blur.BlurTransfer`, or any module of images. None: the batch's
            ``known_blurry`` themselves, for cameras that differ in nothing but blur.
        lr: Learning rate of the generator.
        discriminator_lr: Learning rate of the discriminator; default the same. A higher one (Heusel et al., 2017) keeps
            the generator from running ahead of a discriminator that has learned nothing yet.
        deblur_network: The trained network for the known blur, to measure and show what comes of it; it is not
            trained, nor part of this module's state.
        deblur_weights: File of its weights, see :func:`reblurkit.models.weights.load_weights`.
        score: A metric that needs no sharp image, of the deblurred images, for instance
            :class:`reblurkit.metrics.NIQE`; logged as ``val/score`` for ``EarlyStopping`` and ``ModelCheckpoint``.
        seed: Random numbers of training are a function of it.

    Raises:
        ArgumentError: If an option is out of range, a batch lacks a key, or the first batch is not in [0, 1].
        ShapeError: If sizes do not fit the networks.
        DownloadError: In the first training step, if VGG's weights cannot be had.

    Example:
        >>> translator = Blur2BlurTranslator(MIMOUNet(blocks=1, width=8, identity=True))
        >>> image = torch.rand(1, 3, 32, 48)
        >>> bool((translator(image) == image).all())
        True
        >>> translator.compose(nn.AvgPool2d(3, 1, 1))(image).shape
        torch.Size([1, 3, 32, 48])
    """

    def __init__(
        self,
        generator: nn.Module | None = None,
        discriminator: nn.Module | None = None,
        *,
        perceptual: nn.Module | None = None,
        perceptual_weight: float = 0.8,
        gradient_penalty: float = 1e-4,
        adversarial: AdversarialLoss | AdversarialKind | None = None,
        known_blur: nn.Module | None = None,
        lr: float = 2e-4,
        discriminator_lr: float | None = None,
        deblur_network: nn.Module | None = None,
        deblur_weights: str | os.PathLike[str] | None = None,
        score: Metric | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(score, seed)
        check_not_negative(perceptual_weight=perceptual_weight, gradient_penalty=gradient_penalty)
        check_positive(lr=lr, discriminator_lr=lr if discriminator_lr is None else discriminator_lr)
        if deblur_network is None and (deblur_weights is not None or score is not None):
            raise ArgumentError("`deblur_weights` and `score` belong to a `deblur_network`: give one")
        modules = {
            "generator": generator,
            "discriminator": discriminator,
            "perceptual": perceptual,
            "known_blur": known_blur,
            "deblur_network": deblur_network,
        }
        for name, module in modules.items():
            if not isinstance(module, nn.Module | None):
                raise ArgumentError(f"`{name}` must be an nn.Module, but is {module!r}")
        self.generator = generator or MIMOUNet(identity=True)
        self.discriminator = discriminator or PatchGAN()
        check_two_networks(self.generator, self.discriminator, "discriminator")
        if perceptual is None:
            perceptual = MultiScalePerceptualLoss(reduction="sum")
        elif not isinstance(perceptual, MultiScalePerceptualLoss):
            perceptual = MultiScalePerceptualLoss(perceptual, reduction="sum")
        self.perceptual = perceptual
        self.perceptual_weight = perceptual_weight
        self.gradient_penalty = gradient_penalty
        if not isinstance(adversarial, AdversarialLoss):
            with named_as(kind="adversarial"):
                adversarial = AdversarialLoss(adversarial or "hinge")
        self.adversarial = adversarial
        self.known_blur = known_blur
        self.lr = lr
        self.discriminator_lr = lr if discriminator_lr is None else discriminator_lr
        if deblur_network is not None:
            start_from(deblur_network, deblur_weights, trained=False)
        self._deblur = None if deblur_network is None else Frozen(deblur_network)
        self._sample: Tensor | None = None  # of known blur, to be seen beside the translated images

    def compose(self, deblur_network: nn.Module) -> nn.Module:
        """Both networks as one that makes unknown blur sharp, with the generator as it is now.

        Args:
            deblur_network: The network for the known blur; put into evaluation mode.

        Returns:
            Maps ``(B, 3, H, W)`` to the deblurred images. Its ``multiple`` and ``smallest`` say which sizes it takes,
            as far as the networks' attributes of these names tell; ``FullSize(composed, tile=...)`` takes any.

        Raises:
            ArgumentError: If it is no network.
        """
        if not isinstance(deblur_network, nn.Module):
            raise ArgumentError(
                f"the deblurring network must be a torch.nn.Module, but is {type(deblur_network).__name__}"
            )
        return Composed(copy.deepcopy(self.generator), deblur_network).eval()

    def predict_step(self, batch: Mapping[str, Any], batch_idx: int) -> dict[str, Any]:
        """Deblur a batch: ``translated``, ``deblurred`` (as translated, without a ``deblur_network``), ``name``."""
        translated = self(batch["blurry"]).clamp(0, 1)
        deblurred = translated if self._deblur is None else self._deblurred(translated)
        return {"translated": translated, "deblurred": deblurred, "name": batch["name"]}

    def on_predict_start(self) -> None:
        """Say so where the images will stay blurry."""
        if self._deblur is None:
            rank_zero_warn("there is no `deblur_network`: the predicted images are translated, and still blurry")

    def configure_optimizers(self) -> Any:
        """One optimizer for each network, generator first, with the authors' learning rates."""
        optimizers = [
            torch.optim.Adam(network.parameters(), lr, betas=(0.5, 0.999))
            for network, lr in ((self.generator, self.lr), (self.discriminator, self.discriminator_lr))
        ]
        return self._over_training(optimizers, constant_then_linear)

    @property
    def _translating(self) -> nn.Module:
        return self.generator

    @property
    def _training_keys(self) -> list[str]:
        return ["blurry", *self._real_keys]

    def _step(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        generator_step, discriminator_step = cast("list[Any]", self.optimizers())
        blurry = batch["blurry"]
        outputs = outputs_of(self.generator, blurry)
        real = self._real(batch)
        reals, fakes = self._inner(_pyramid(real, outputs)), self._inner(outputs)
        fixed = [fake.detach() for fake in fakes]

        real_scores, fake_scores = self._scores(reals), self._scores(fixed)
        loss = discriminator_loss = self.adversarial.discriminator(real_scores, fake_scores)
        penalty = torch.zeros_like(loss)
        if self.gradient_penalty:
            penalty = gradient_penalty(self.discriminator, reals, fixed)
            loss = loss + self.gradient_penalty * penalty
        self._minimise(discriminator_step, loss)

        with held_fixed(self.discriminator):
            adversarial = self.adversarial.generator(self._scores(fakes))
        perceptual = self._content(outputs, blurry) if self.perceptual_weight else torch.zeros_like(adversarial)
        self._minimise(generator_step, adversarial + self.perceptual_weight * perceptual)
        for scheduler in cast("list[OverTraining]", self.lr_schedulers()):
            scheduler.step()

        self._sample = real[0]
        return {
            "loss_adversarial": adversarial.detach(),
            "loss_perceptual": perceptual.detach(),
            "loss_discriminator": discriminator_loss.detach(),
            "gradient_penalty": penalty.detach(),
            "score_real": mean_score(real_scores),
            "score_fake": mean_score(fake_scores),
            **changes(outputs[-1], blurry),
        }

    @property
    def _real_keys(self) -> list[str]:
        if self.known_blur is None:
            return ["known_blurry"]
        return ["sharp", "known_blurry", "known_sharp"] if getattr(self.known_blur, "needs_pairs", False) else ["sharp"]

    @torch.no_grad()
    def _real(self, batch: Mapping[str, Any]) -> Tensor:
        images = [batch[key] for key in self._real_keys]
        real: Tensor = images[0] if self.known_blur is None else self.known_blur(*images)
        return real.detach().clamp(0, 1)

    def _inner(self, images: list[Tensor]) -> list[Tensor]:
        """Without the border where known blur had nothing real to blur in: the discriminator would look there."""
        border = getattr(self.known_blur, "border", 0)
        full = images[-1].shape[-1]
        borders = [math.ceil(border * image.shape[-1] / full) for image in images]
        check_room(images, borders, self.discriminator, self.generator)
        return [
            image[..., each : image.shape[-2] - each, each : image.shape[-1] - each]
            for each, image in zip(borders, images, strict=True)
        ]

    def _scores(self, images: list[Tensor]) -> list[Tensor]:
        return [self.discriminator(image) for image in images]

    def _content(self, outputs: list[Tensor], blurry: Tensor) -> Tensor:
        try:
            loss: Tensor = self.perceptual(outputs, blurry)
        except DownloadError as error:
            raise type(error)(
                f"{error}; or train without VGG: perceptual=EfficientNetLiteFeatures() comes with the extra "
                "[perceptual], torch.nn.AvgPool2d(4) compares means of small squares, LayerFeatures(network, layers) "
                "features of any network at hand, for instance of the deblurring network"
            ) from error
        return loss

    def _deblurred(self, image: Tensor) -> Tensor:
        assert self._deblur is not None
        deblurred: Tensor = FullSize(self._deblur.on(image))(image)
        return deblurred.clamp(0, 1)

    def _versions(self, blurry: Tensor) -> Versions:
        translated = self(blurry).clamp(0, 1)
        pictures = {"translated": translated}
        if self._sample is not None:
            pictures["known blur"] = _placed(self._sample, blurry)
        if self._deblur is None:
            return Versions(translated, None, None, pictures)
        alone, deblurred = self._deblurred(blurry), self._deblurred(translated)
        pictures |= {"deblurred alone": alone, "translated, deblurred": deblurred}
        return Versions(translated, deblurred, alone, pictures)

    def _advice(self, keys: Sequence[str]) -> str:
        if "known_sharp" in keys:
            return (
                "; this known blur is taken from known pairs: add them to the data (trainC, trainD), or use ShakeBlur"
            )
        if "known_blurry" in keys:
            return "; without `known_blur` the data must bring images of it: add them (trainC), or give ShakeBlur"
        return ""


def _pyramid(image: Tensor, outputs: list[Tensor]) -> list[Tensor]:
    """The image at the outputs' sizes relative to the last, resized as the perceptual loss resizes the input."""
    full = outputs[-1].shape
    sizes = [[image.shape[axis] * output.shape[axis] // full[axis] for axis in (2, 3)] for output in outputs]
    return [*(F.interpolate(image, size, mode="bilinear", align_corners=False) for size in sizes[:-1]), image]


def _placed(sample: Tensor, image: Tensor) -> Tensor:
    """A sample in the corner of a grey picture of the image's size, for drawings side by side."""
    picture = torch.full_like(image, 0.5)
    height, width = (min(one, other) for one, other in zip(sample.shape[-2:], image.shape[-2:], strict=True))
    picture[..., :height, :width] = sample[..., :height, :width]
    return picture
