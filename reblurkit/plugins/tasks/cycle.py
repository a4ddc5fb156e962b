"""CycleGAN and DualGAN: from blurry to sharp images without pairs and without a deblurring network."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from itertools import chain
from typing import Any, Literal, NamedTuple, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric

from reblurkit.core.calls import check_two_networks, finest_scale
from reblurkit.core.numbers import check_not_negative, check_positive, check_whole
from reblurkit.data.image_pool import ImagePool
from reblurkit.errors import ArgumentError
from reblurkit.losses.adversarial import AdversarialKind, AdversarialLoss
from reblurkit.models.deblur.deblurgan import DeblurGAN
from reblurkit.models.full_size import FullSize
from reblurkit.models.patchgan import PatchGAN
from reblurkit.plugins.schedules import OverTraining, constant_then_linear
from reblurkit.plugins.tasks.unpaired import UnpairedTask, Versions, changes, held_fixed, mean_score, outputs_of

CycleForm = Literal["cyclegan", "dualgan"]


class _Recipe(NamedTuple):
    adversarial: AdversarialKind
    cycle_weight: float
    identity_weight: float
    lr: float
    pool: int
    critic_steps: int
    clip: float | None


_RECIPES: dict[CycleForm, _Recipe] = {
    "cyclegan": _Recipe("lsgan", 20.0, 10.0, 2e-4, 50, 1, None),
    "dualgan": _Recipe("wgan", 200.0, 0.0, 5e-5, 0, 2, 0.01),
}


class CycleTranslator(UnpairedTask):
    """Learns from unpaired blurry and sharp images to deblur: the unpaired rivals of Blur2Blur.

    Zhu et al., *Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks* (ICCV 2017). A network
    F deblurs, a second one G blurs, and each has a discriminator, D_S of sharp and D_B of blurry images::

        L = L_adv(D_S, F(B)) + L_adv(D_B, G(S)) + cycle_weight * (|G(F(B)) - B| + |F(G(S)) - S|)
            + identity_weight * (|F(S) - S| + |G(B) - B|)

    with least squares for L_adv, Adam (2e-4, beta 0.5 and 0.999), learning rates that are constant for half of the
    training and then fall to 0, and discriminators that see images from a pool of the last 50.
    ``form="dualgan"`` is Yi et al., *DualGAN: Unsupervised Dual Learning for Image-to-Image Translation* (ICCV 2017):
    Wasserstein losses with weights of the discriminators cut off at 0.01, RMSprop (5e-5, constant), several steps of
    the discriminators for one of the generators, neither identity loss nor pool.

    Different from the papers: L1 is a mean over images in [0, 1], half of theirs in [-1, 1], so that the weights 20 and
    10 are CycleGAN's 10 and 5, and 200 is the least of DualGAN's 100 to 1000; discriminators step first, as DualGAN's
    do; their loss is the sum of both halves, not its half; the learning rate falls every step, not every epoch.
    DualGAN's noise is CycleGAN's none, its networks are CycleGAN's, and its discriminators take their ``critic_steps``
    on one batch instead of several.

    What comes out is a deblurring network, ``network``: ``reblurkit deblur --checkpoint`` takes a checkpoint, and
    :meth:`compose` gives the network alone. It does without a deblurring network for a known blur, and cannot make
    use of one: compare with ``docs/methods/blur2blur.md``.

    Optimization is manual: ``trainer.global_step`` and ``max_steps`` count all steps of both optimizers, two a batch,
    and of DualGAN one more than ``critic_steps``; Lightning refuses ``gradient_clip_val`` and
    ``accumulate_grad_batches``. A resumed run is bit-equal; the pool is in the checkpoint, of several processes the
    first one's.

    Batches are dicts: for training ``blurry`` and ``sharp``, unpaired; for validation and tests ``blurry`` and, where
    there is one, its ``sharp``; for prediction ``blurry`` and ``name``.

    Training logs ``train/loss_adversarial``, ``loss_cycle``, ``loss_identity``, ``loss_discriminator``, ``score_real``
    and ``score_fake`` (the discriminators' mean scores), ``contrast`` and ``colour_shift``, all without weights;
    :class:`reblurkit.plugins.TranslationWatch` warns when they say that the training goes wrong. Over validation and
    test images: ``content_ssim`` (deblurred to blurry), ``colour_shift`` in grey levels, ``score``, and with sharp
    images ``psnr``, ``ssim``, ``psnr_blurry`` and ``ssim_blurry``.

    Args:
        network: F, maps blurry images ``(B, 3, H, W)`` to sharp ones, or to a list from coarse to fine; default
            CycleGAN's, ``DeblurGAN(dropout=0.0, global_residual=False)``, whose layers are the same.
        blur_network: G, the other way; default like F, of a ``network`` of yours a copy.
        discriminator: D_S, maps images to scores without an activation; default ``PatchGAN()``.
        blurry_discriminator: D_B; default like D_S.
        form: ``"cyclegan"`` or ``"dualgan"``; the defaults below follow from it.
        cycle_weight: That of the formula; lambda in the papers.
        identity_weight: That of the formula.
        pool: Images in each of the two pools; 0: none.
        lr: Learning rate of all networks.
        critic_steps: Steps of the discriminators for one of the generators.
        score: A metric that needs no sharp image, of the deblurred images, for instance
            :class:`reblurkit.metrics.NIQE`; logged as ``val/score``.
        seed: Random numbers of training are a function of it.

    Raises:
        ArgumentError: If an option is out of range, a batch lacks a key, or the first batch is not in [0, 1].
        ShapeError: If sizes do not fit the networks.

    Example:
        >>> from reblurkit.models import ReblurNet
        >>> rival = CycleTranslator(ReblurNet(width=4, identity=True), discriminator=PatchGAN(4, layers=1))
        >>> rival.compose()(torch.rand(1, 3, 32, 48)).shape
        torch.Size([1, 3, 32, 48])
    """

    def __init__(
        self,
        network: nn.Module | None = None,
        blur_network: nn.Module | None = None,
        discriminator: nn.Module | None = None,
        blurry_discriminator: nn.Module | None = None,
        *,
        form: CycleForm = "cyclegan",
        cycle_weight: float | None = None,
        identity_weight: float | None = None,
        pool: int | None = None,
        lr: float | None = None,
        critic_steps: int | None = None,
        score: Metric | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(score, seed)
        if form not in get_args(CycleForm):
            raise ArgumentError(f"`form` must be cyclegan or dualgan, but is {form!r}")
        given: dict[str, Any] = {"cycle_weight": cycle_weight, "identity_weight": identity_weight, "pool": pool}
        given |= {"lr": lr, "critic_steps": critic_steps}
        recipe = _RECIPES[form]._replace(**{name: value for name, value in given.items() if value is not None})
        check_not_negative(cycle_weight=recipe.cycle_weight, identity_weight=recipe.identity_weight, pool=recipe.pool)
        check_positive(lr=recipe.lr)
        check_whole(critic_steps=recipe.critic_steps)
        self.network, self.blur_network = _pair(network, blur_network, _generator)
        self.discriminator, self.blurry_discriminator = _pair(discriminator, blurry_discriminator, PatchGAN)
        for name in ("blur_network", "discriminator", "blurry_discriminator"):
            check_two_networks(self.network, getattr(self, name), name)
        self.form = form
        self.recipe = recipe
        self.adversarial = AdversarialLoss(recipe.adversarial)
        self._pools = {name: ImagePool(recipe.pool) for name in ("sharp", "blurry")}

    def compose(self) -> nn.Module:
        """The deblurring network as it is now, alone, in evaluation mode: blurry to sharp images."""
        return copy.deepcopy(self.network).eval()

    def predict_step(self, batch: Mapping[str, Any], batch_idx: int) -> dict[str, Any]:
        """Deblur a batch: ``deblurred`` and ``name``."""
        return {"deblurred": self(batch["blurry"]).clamp(0, 1), "name": batch["name"]}

    def configure_optimizers(self) -> Any:
        """One optimizer for both generators, then one for both discriminators."""
        pairs = (self.network, self.blur_network), (self.discriminator, self.blurry_discriminator)
        parameters = [list(chain.from_iterable(each.parameters() for each in pair)) for pair in pairs]
        if self.form == "dualgan":
            return [torch.optim.RMSprop(each, self.recipe.lr, alpha=0.9) for each in parameters]
        optimizers = [torch.optim.Adam(each, self.recipe.lr, betas=(0.5, 0.999)) for each in parameters]
        return self._over_training(optimizers, partial(constant_then_linear, parts=2))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the pools."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["image_pools"] = {name: [*pool.images] for name, pool in self._pools.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the pools."""
        super().on_load_checkpoint(checkpoint)
        for name, images in checkpoint.get("image_pools", {}).items():
            self._pools[name].images = images[: self._pools[name].size]

    @property
    def _translating(self) -> nn.Module:
        return self.network

    @property
    def _training_keys(self) -> tuple[str, str]:
        return "blurry", "sharp"

    def _step(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        generators_step, discriminators_step = cast("list[Any]", self.optimizers())
        blurry, sharp = batch["blurry"], batch["sharp"]
        deblurred, reblurred = outputs_of(self.network, blurry)[-1], outputs_of(self.blur_network, sharp)[-1]
        judged = [  # by each discriminator: itself, real images, generated ones, some of these and earlier ones
            (self.discriminator, sharp, deblurred, self._pools["sharp"].exchange(deblurred)),
            (self.blurry_discriminator, blurry, reblurred, self._pools["blurry"].exchange(reblurred)),
        ]
        for _ in range(self.recipe.critic_steps):
            scores = [(judge(real), judge(pooled)) for judge, real, _, pooled in judged]
            discriminators = torch.stack([self.adversarial.discriminator(*each) for each in scores]).sum()
            self._minimise(discriminators_step, discriminators)
            self._cut_off()

        with held_fixed(self.discriminator, self.blurry_discriminator):
            adversarial = torch.stack([self.adversarial.generator(judge(fake)) for judge, _, fake, _ in judged]).sum()
        cycle = _distance(self.blur_network, deblurred, blurry) + _distance(self.network, reblurred, sharp)
        identity = torch.zeros_like(adversarial)
        if self.recipe.identity_weight:
            identity = _distance(self.network, sharp, sharp) + _distance(self.blur_network, blurry, blurry)
        loss = adversarial + self.recipe.cycle_weight * cycle + self.recipe.identity_weight * identity
        self._minimise(generators_step, loss)
        for scheduler in cast("list[OverTraining]", self.lr_schedulers() or []):
            scheduler.step()
        return {
            "loss_adversarial": adversarial.detach(),
            "loss_cycle": cycle.detach(),
            "loss_identity": identity.detach(),
            "loss_discriminator": discriminators.detach(),
            "score_real": mean_score([real for real, _ in scores]),
            "score_fake": mean_score([fake for _, fake in scores]),
            **changes(deblurred, blurry),
        }

    @torch.no_grad()
    def _cut_off(self) -> None:
        """Keep the critics' weights small: they are to be Lipschitz continuous (Arjovsky et al., 2017)."""
        if self.recipe.clip is not None:
            for parameter in chain(self.discriminator.parameters(), self.blurry_discriminator.parameters()):
                parameter.clamp_(-self.recipe.clip, self.recipe.clip)

    def _versions(self, blurry: Tensor) -> Versions:
        deblurred = self(blurry).clamp(0, 1)
        again = finest_scale(FullSize(self.blur_network)(deblurred)).clamp(0, 1)
        return Versions(deblurred, deblurred, None, {"deblurred": deblurred, "blurred again": again})


def _generator() -> nn.Module:
    return DeblurGAN(dropout=0.0, global_residual=False)


def _pair(
    first: nn.Module | None, second: nn.Module | None, build: Callable[[], nn.Module]
) -> tuple[nn.Module, nn.Module]:
    """Two networks: those given, a copy of the first in the second's place, or two new ones."""
    if second is None:
        second = build() if first is None else copy.deepcopy(first)
    return build() if first is None else first, second


def _distance(network: nn.Module, image: Tensor, target: Tensor) -> Tensor:
    return F.l1_loss(outputs_of(network, image)[-1], target)
