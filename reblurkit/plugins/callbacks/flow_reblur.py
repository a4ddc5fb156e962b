"""Fine-tuning on blurry video without ground truth."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as L
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset

from reblurkit.blur import FlowKernelBlur
from reblurkit.blur.arguments import check_exposure
from reblurkit.core.calls import call_without_trace, find_network, frame_inputs, preserved_rng
from reblurkit.core.checks import FirstBatchCheck
from reblurkit.core.finite import joint_norm
from reblurkit.core.numbers import check_not_negative, check_positive
from reblurkit.errors import ArgumentError, NonFiniteLossError, PluginError, WeightsError
from reblurkit.losses.flow_reblur import Distance, FlowReblurTerms, flow_reblur_terms
from reblurkit.models.flow.pretrained import pretrained_flow
from reblurkit.plugins.callbacks.auxiliary_optimizer import AuxiliaryOptimizer, leading_optimizer
from reblurkit.plugins.callbacks.finite_loss import batch_names
from reblurkit.plugins.callbacks.first_to_hear import FirstToHear
from reblurkit.plugins.callbacks.replaced_method import ReplacedMethod
from reblurkit.plugins.crops import explained_by_crop
from reblurkit.plugins.datamodules.cycled import CycledLoader
from reblurkit.plugins.datamodules.unlabelled_clips import clip_loader, clips_of, first_clips


class FlowReblurFinetuneCallback(L.Callback):
    """Improves a trained deblurring network on the user's own blurry video, without ground truth.

    From Chen et al., "Reblur2Deblur: Deblurring Videos via Self-Supervised Learning", ICCP 2018. To the loss that the
    user's ``training_step`` returns for labelled data it adds ``weight`` times the self-supervised loss of a batch of
    unlabelled clips (equations 7 and 10): the clip's frames are deblurred, the motion between them is estimated, and
    the centre frame, blurred along that motion, must be the observed one. The user's code stays as it is and sees its
    own batches only; the unlabelled clips leave the network's buffers and the random state alone.

    The loss alone would be content with many images, so labelled training must go on beside it (section 3.4).

    The flow network is fine-tuned too (section 4.2), by Adam with a constant learning rate. It belongs to this
    callback: its weights are in the callback's state in checkpoints, not among the module's. It stays in evaluation
    mode, as statistics of small batches would spoil its normalisation. Logs ``train/loss_unlabelled``, without its
    weight, and ``lr-flow``.

    In automatic optimization the loss is part of what ``training_step`` returns. In manual optimization its gradients
    are added right before the step of the optimizer that holds the deblurring network; not with ``16-mixed``.

    Args:
        unlabelled: Clips of blurry video: a DataLoader, a LightningDataModule with a training loader, or a Dataset,
            which is then read in batches as large as the labelled ones. Batches are tensors ``(B, T, 3, H, W)`` in
            [0, 1], or dicts with them under ``frames``; the centre frame is ``T // 2``. They are cycled, shared out
            among processes, and resumed in the same order.
        network: Dotted path of the deblurring network in the user's module. A network with an attribute ``frames``
            above 1 gets stacks ``(B, frames, 3, H, W)`` around each frame, at a clip's ends with its last frame
            repeated; any other gets single frames, those of a clip as one batch.
        flow: Name of a flow network that has published weights or needs none, or any module ``(source, target) ->
            flow``, see :mod:`reblurkit.models.flow`.
        exposure: Half-length of the exposure in frame intervals; :func:`reblurkit.blur.exposure_from` computes it.
            Must be given unless ``blur`` is. The paper's 1.0 says that each exposure lasts two frame intervals; video
            has 0.5 at most.
        blur: Formation model; default ``FlowKernelBlur(exposure=exposure)``, the paper's lookup table.
        weight: alpha of equation 10.
        frames: 3, or 2 for the variant with steady motion, which needs clips of two frames only (Table 5).
        train_flow: Train the flow network too.
        flow_lr: Its learning rate.
        distance: h of equation 7; default the mean squared error.
        mask: Leave out pixels whose motion cannot be right, see :func:`reblurkit.losses.flow_reblur_loss`.
        consistency: Leave out pixels where the flows forth and back do not cancel.
        photometric: Weight of a term that trains the flow network alone to warp frames onto each other.
        smoothness: Weight of a second such term, for smooth flow.
        warmup: Optimizer steps during which the weight rises from 0 to its value.

    Raises:
        ArgumentError: If an argument is out of range, ``exposure`` is missing or contradicts ``blur``, or the clips
            have too few frames or values outside [0, 1].
        ShapeError: If a batch is no batch of clips, or the flow network's output does not fit.
        NonFiniteLossError: If the loss becomes NaN or infinite, before any weight is harmed.
        PluginError: If the network is not found, ``training_step`` returns something else than Lightning takes, or
            optimization is manual in ``16-mixed``.
    """

    def __init__(
        self,
        unlabelled: DataLoader[Any] | Dataset[Any] | L.LightningDataModule,
        network: str = "network",
        flow: str | nn.Module = "raft-small",
        *,
        exposure: float | None = None,
        blur: nn.Module | None = None,
        weight: float = 0.1,
        frames: int = 3,
        train_flow: bool = True,
        flow_lr: float = 1e-4,
        distance: Distance | None = None,
        mask: bool = True,
        consistency: bool = False,
        photometric: float = 0.0,
        smoothness: float = 0.0,
        warmup: int = 0,
    ) -> None:
        check_not_negative(weight=weight, photometric=photometric, smoothness=smoothness, warmup=warmup)
        check_positive(flow_lr=flow_lr)
        if not isinstance(flow, str | nn.Module):
            raise ArgumentError(f"`flow` must be the name of a flow network or a module, but is {flow!r}")
        for name, function in {"blur": blur, "distance": distance}.items():
            if not (function is None or callable(function)):
                raise ArgumentError(f"`{name}` must be a module or function, but is {function!r}")
        if frames not in (2, 3):
            raise ArgumentError(f"`frames` must be 2 or 3, but is {frames!r}")
        self.unlabelled = unlabelled
        self.network = network
        self.flow = flow
        self.blur = _formation_model(exposure, blur)
        self.weight = weight
        self.frames = frames
        self.train_flow = train_flow
        self.flow_lr = flow_lr
        self.warmup = warmup
        self._options: dict[str, Any] = {
            "distance": distance,
            "mask": mask,
            "consistency": consistency,
            "photometric": photometric,
            "smoothness": smoothness,
        }
        self.flow_network: nn.Module | None = flow if isinstance(flow, nn.Module) else None
        self._auxiliary = AuxiliaryOptimizer()
        self._clips: CycledLoader | None = None
        self._restored: dict[str, Any] | None = None
        self._replaced: ReplacedMethod | None = None
        self._first = FirstToHear(self._unwrap_training_step)
        self._steps = 0
        self._names: list[str] = []
        self._check_range = FirstBatchCheck()
        self._warned = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Load the flow network, give it an optimizer, and add the loss to the module's training step."""
        if stage != "fit":
            return
        deblur_net = find_network(pl_module, self.network)
        if self.flow_network is None:
            assert isinstance(self.flow, str)
            with preserved_rng(torch.get_default_device()):
                self.flow_network = pretrained_flow(self.flow)
        self.flow_network.eval().requires_grad_(self.train_flow)
        if self.train_flow and [*self.flow_network.parameters()]:
            self._attach_optimizer(trainer, self.flow_network, deblur_net)
        if pl_module.automatic_optimization:
            self._wrap_training_step(pl_module)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the flow network on the module's device, the same in every process."""
        self._first.begin(trainer)
        assert self.flow_network is not None
        if not pl_module.automatic_optimization and getattr(trainer.precision_plugin, "scaler", None) is not None:
            raise PluginError(
                "in manual optimization the loss is added after the gradients have been unscaled, where those of half "
                "precision are gone; train with `precision` 'bf16-mixed' or 32, or with automatic optimization"
            )
        if trainer.ckpt_path is None:
            self._restored = None  # a checkpoint that `validate` or `test` has read is not resumed from
        if self._restored is not None:
            try:
                self.flow_network.load_state_dict(self._restored["flow"])
            except RuntimeError as error:
                raise WeightsError(
                    f"the checkpoint was written with another flow network than {type(self.flow_network).__name__}; "
                    "resume with the same `flow`, or start anew from the network's weights"
                ) from error
        self.flow_network.to(pl_module.device)
        self.blur.to(pl_module.device)
        if trainer.world_size > 1:  # DDP looks after the module only
            self.flow_network.load_state_dict(trainer.strategy.broadcast(self.flow_network.state_dict()))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open the unlabelled data."""
        self._clips = CycledLoader(
            clip_loader(self.unlabelled, trainer),
            seed=trainer.strategy.broadcast(torch.initial_seed() % 2**32),
            replicas=trainer.world_size,
            rank=trainer.global_rank,
        )
        self._steps = 0
        if self._restored is not None:
            self._clips.load_state_dict(self._restored["clips"])
            self._steps = self._restored["steps"]
            self._restored = None

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        """Count steps; in manual optimization, add the loss's gradients to those that are about to be used."""
        deblur_net = find_network(pl_module, self.network)
        if optimizer is not leading_optimizer(deblur_net, trainer.optimizers):
            return
        if not pl_module.automatic_optimization:
            with torch.enable_grad():
                loss = self._unlabelled_loss(pl_module)
            networks = [deblur_net, *([self.flow_network] if self.flow_network else [])]
            _add_gradients(loss, networks, trainer, self._names)
        self._steps += 1

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Give the module its own training step back."""
        self._first.end(trainer)
        self._unwrap_training_step()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Give the module its own training step back, also before ``on_fit_start``."""
        self._unwrap_training_step()

    def state_dict(self) -> dict[str, Any]:
        """The flow network's weights, the place in the unlabelled data, and the steps taken."""
        if self.flow_network is None or self._clips is None:
            return {}
        return {"flow": self.flow_network.state_dict(), "clips": self._clips.state_dict(), "steps": self._steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until ``fit`` starts."""
        self._restored = state_dict or None

    def _attach_optimizer(self, trainer: L.Trainer, flow_network: nn.Module, deblur_net: nn.Module) -> None:
        """Train the flow network through the callback of the module's other auxiliary networks, or one of its own."""
        callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set where mypy does not look
        found = [callback for callback in callbacks if isinstance(callback, AuxiliaryOptimizer)]
        if not found:
            callbacks.append(self._auxiliary)  # Lightning sets it up next
        auxiliary = found[0] if found else self._auxiliary
        if "flow" in auxiliary:
            auxiliary.update("flow", flow_network, deblur_net)
        else:
            optimizer = functools.partial(torch.optim.Adam, lr=self.flow_lr)
            auxiliary.add("flow", flow_network, beside=deblur_net, optimizer=optimizer, outside=True)

    def _wrap_training_step(self, pl_module: L.LightningModule) -> None:
        def training_step(*args: Any, **kwargs: Any) -> Any:
            output = replaced.original(*args, **kwargs)
            return _add_to_loss(output, self._unlabelled_loss(pl_module))

        self._unwrap_training_step()
        self._replaced = replaced = ReplacedMethod(pl_module, "training_step", training_step)

    def _unwrap_training_step(self) -> None:
        if self._replaced is not None:
            self._replaced.restore()
            self._replaced = None

    def _unlabelled_loss(self, pl_module: L.LightningModule) -> Tensor:
        """The weighted loss of the next clips."""
        assert self._clips is not None
        assert self.flow_network is not None
        batch = next(self._clips)
        self._names = batch_names(batch)
        clips = move_data_to_device(clips_of(batch), pl_module.device)
        clips = pl_module.trainer.precision_plugin.convert_input(clips)
        self._check_range(frames=clips)
        network = find_network(pl_module, self.network)
        terms = self.evaluate(network, clips)
        self._check_terms(terms, pl_module.trainer)
        pl_module.log("train/loss_unlabelled", terms.loss.detach(), batch_size=len(clips))
        rising = (self._steps + 1) / self.warmup if self._steps < self.warmup else 1.0
        return self.weight * rising * terms.loss

    def _check_terms(self, terms: FlowReblurTerms, trainer: L.Trainer) -> None:
        """Stop at a loss that would break the weights, and say so where no pixel of a batch teaches anything."""
        finite, used = torch.stack([terms.loss.isfinite(), terms.mask.any()]).tolist()
        if not finite:
            named = {"deblurred frames": terms.deblurred, "flow": terms.flow_next, "reblurred frames": terms.reblurred}
            broken = [name for name, tensor in named.items() if not tensor.isfinite().all()]
            raise NonFiniteLossError(
                f"the self-supervised loss is {terms.loss.item()} in step {trainer.global_step}: the "
                f"{' and the '.join(broken) or 'distance'} hold NaN or infinity; clips of the batch: "
                f"{', '.join(self._names) or 'unnamed'}; look at them and the flow, or lower the learning rates"
            )
        if not used and not self._warned:
            self._warned = True
            rank_zero_warn(
                "no pixel of a batch of clips is used, so it teaches nothing: its motion times the exposure is longer "
                "than the blur model or the frame, or the flow forth and back do not agree; look at both"
            )

    def evaluate(self, network: nn.Module, clips: Tensor) -> FlowReblurTerms:
        """The self-supervised loss of clips, unweighted, and what it is made of.

        Args:
            network: The deblurring network.
            clips: ``(B, T, 3, H, W)`` in [0, 1], on its device.

        Raises:
            ArgumentError: If there are fewer frames than the loss needs.
            PluginError: Before ``fit`` has loaded the flow network.
        """
        if self.flow_network is None:
            raise PluginError("the flow network is loaded when `fit` starts; pass a module as `flow` to use it before")
        if clips.shape[1] < self.frames:
            raise ArgumentError(
                f"clips must have at least {self.frames} frames, but have {clips.shape[1]}"
                + ("; frames=2 takes pairs and supposes steady motion" if clips.shape[1] == 2 else "")
            )
        centre = clips.shape[1] // 2
        wanted = range(centre - 1, centre - 1 + self.frames)
        with explained_by_crop(clips, network):
            deblurred = call_without_trace(network, frame_inputs(network, clips, wanted))
        deblurred = deblurred.view(len(clips), len(wanted), *deblurred.shape[1:])
        with torch.autocast(clips.device.type, enabled=False):  # motion in half precision would be off by pixels
            return flow_reblur_terms(
                deblurred.to(clips.dtype), clips[:, centre], self.flow_network, blur=self.blur, **self._options
            )

    def first_clips(self, number: int) -> Tensor:
        """The first clips of the unlabelled data set, ``(number, T, 3, H, W)``, while ``fit`` runs.

        Raises:
            ArgumentError: If the data set cannot be indexed.
        """
        assert self._clips is not None
        return first_clips(self._clips.loader, number)


def _formation_model(exposure: float | None, blur: nn.Module | None) -> nn.Module:
    if exposure is not None:
        check_exposure(exposure)
    if blur is None:
        if exposure is None:
            raise ArgumentError(
                "give `exposure`, the half-length of the exposure in frame intervals: exposure_from(shutter=1/48, "
                "fps=24) or exposure_from(window=9, stride=9) computes it; or a formation model `blur`"
            )
        return FlowKernelBlur(exposure)
    if exposure is not None and exposure != getattr(blur, "exposure", None):
        raise ArgumentError(
            f"`blur` keeps its own exposure, {getattr(blur, 'exposure', 'which is unknown')}, but `exposure` is "
            f"{exposure}; leave `exposure` out"
        )
    return blur


def _add_to_loss(output: Any, term: Tensor) -> Any:
    """What the user's training step returned, with the term added to its loss; None skips the step, as it does."""
    if output is None:
        return None
    if isinstance(output, Tensor):
        return output + term
    if isinstance(output, Mapping) and isinstance(output.get("loss"), Tensor):
        return {**output, "loss": output["loss"] + term}
    raise PluginError(
        f"`training_step` must return a loss, a dict with one under 'loss', or None, but returned "
        f"{type(output).__name__}"
    )


def _add_gradients(loss: Tensor, networks: list[nn.Module], trainer: L.Trainer, names: list[str]) -> None:
    """Accumulate gradients as a backward pass would, averaged over the processes, as nothing else does it here."""
    parameters = [parameter for network in networks for parameter in network.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    if not joint_norm(gradient for gradient in gradients if gradient is not None).isfinite():
        raise NonFiniteLossError(
            f"the gradient of the self-supervised loss is NaN or infinite in step {trainer.global_step}; clips of the "
            f"batch: {', '.join(names) or 'unnamed'}; look at them, or lower the learning rates"
        )
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None:
            gradient = trainer.strategy.reduce(gradient, reduce_op="mean")
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
