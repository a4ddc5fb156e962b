"""Distances of images in the feature maps of a frozen network."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reblurkit.core.calls import finest_scale
from reblurkit.core.checks import check_images
from reblurkit.errors import ArgumentError, ShapeError
from reblurkit.models.vgg import VGG, VGGFeatures, check_vgg_layers

Reduction = Literal["mean", "sum"]

_BLUR2BLUR = {"relu2_2": 1 / 32, "relu3_3": 1 / 16, "relu4_1": 1 / 8, "relu4_3": 1 / 4, "conv5_1": 1.0}


class VGGLoss(nn.Module):
    """L_VGG: the distance of two images' feature maps, which Tables 5, S5 and S6 add with weight 0.3.

    Nah et al., *Clean Images are Hard to Reblur* (2021), section S3, name neither layer nor distance. Picked here:
    ``conv5_4`` of VGG-19 before its ReLU on normalised images, as in SRGAN and in a co-author's public library for
    super-resolution; and L1, as everywhere in the paper ("always p = 1"), where that library has the squared
    distance. DeblurGAN's loss is ``VGGLoss(layers=["conv3_3"], distance=nn.MSELoss())``.

    The feature extractor is no submodule: it is absent from parameters, checkpoints and ``.to(...)``, and follows the
    images to their device. VGG's weights are loaded when the loss is first evaluated, so that a configuration
    that names it can test and predict without them. Autocast applies to the extractor, not to the distance.

    Args:
        features: ``"vgg19"``, ``"vgg16"``, or any module that maps images to a feature map or a list of them, for
            instance :class:`reblurkit.models.EfficientNetLiteFeatures`, whose weights come with the extra
            ``[perceptual]``; of a module a frozen copy in evaluation mode is used.
        layers: Names of VGG's maps, see :class:`reblurkit.models.VGGFeatures`; default ``["conv5_4"]``, the last
            convolution (``conv5_3`` of VGG-16).
        layer_weights: Factor of each map's distance; default 1.
        weights: File of VGG's weights as torchvision publishes them; default: downloaded once, about 550 MB.
        distance: Called with the two maps; default the mean absolute difference.
        normalize: Shift and scale the images as ImageNet's classifiers were trained; not for features that do so
            themselves, such as ``EfficientNetLiteFeatures``.

    Shape:
        ``(deblurred, sharp)``, each ``(B, 3, H, W)`` in [0, 1], sides at least 16 for the default layer;
        ``deblurred`` may be a list from coarse to fine, of which the last is used. Gradients reach ``deblurred``
        only. Returns a scalar.

    Raises:
        ArgumentError: If an option is unknown, or belongs to VGG while ``features`` is a module.
        DownloadError: At the first evaluation, if the weights are neither there nor can be downloaded.
        WeightsError: At the first evaluation, if the file is missing, damaged, or of another network.

    Example:
        >>> loss = VGGLoss(nn.AvgPool2d(2), normalize=False)
        >>> loss(torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), 0.25))
        tensor(0.2500)
    """

    def __init__(
        self,
        features: VGG | nn.Module = "vgg19",
        *,
        layers: Sequence[str] | None = None,
        layer_weights: Sequence[float] | None = None,
        weights: str | os.PathLike[str] | None = None,
        distance: nn.Module | None = None,
        normalize: bool = True,
    ) -> None:
        super().__init__()
        if layers is None and isinstance(features, str):
            layers = ["conv5_3" if features == "vgg16" else "conv5_4"]
        if not (distance is None or callable(distance)):
            raise ArgumentError(f"`distance` must be a module or function of two maps, but is {distance!r}")
        self.distance = distance or nn.L1Loss()
        self._features = _FrozenFeatures(features, layers, layer_weights, weights, normalize)

    def forward(self, deblurred: Tensor | Sequence[Tensor], sharp: Tensor) -> Tensor:
        """Return the scalar loss."""
        deblurred = finest_scale(deblurred)
        check_images(deblurred=deblurred, sharp=sharp)
        return self._features.distance(deblurred, sharp, self.distance)

    def extra_repr(self) -> str:
        """The options, for ``repr``."""
        return repr(self._features)


class MultiScalePerceptualLoss(nn.Module):
    """L_rec of Blur2Blur: the output at every scale keeps the perceptual content of the input at that scale.

    Pham et al., *Blur2Blur* (CVPR 2024): (1/M) sum_i E ||phi(y_i) - phi(G(y)_i)||_1, with a mean over each map's
    elements, M scales and y_i the input resized bilinearly to the size of the i-th output. The defaults of phi are
    those of the authors' program: five maps of VGG-16 with weights 1/32, 1/16, 1/8, 1/4 and 1, without ImageNet's
    normalisation. That program leaves out 1/M, which is ``reduction="sum"``.

    Feature extractor and weights are kept as in :class:`VGGLoss`.

    Args:
        features: ``"vgg16"``, ``"vgg19"``, or any module that maps images to a feature map or a list of them.
        layers: Names of VGG's maps; default ``relu2_2``, ``relu3_3``, ``relu4_1``, ``relu4_3`` and ``conv5_1``.
        layer_weights: Factor of each map's distance; default the authors' for the default layers, else 1.
        weights: File of VGG's weights as torchvision publishes them; default: downloaded once, about 550 MB.
        normalize: Shift and scale the images, as in :class:`VGGLoss`.
        reduction: ``"mean"`` over the scales as in the paper, or ``"sum"``.

    Shape:
        ``(outputs, image)``: images ``(B, 3, h, w)`` from coarse to fine, the sides of the smallest at least 16 for
        the default layers, and the input ``(B, 3, H, W)``; gradients reach ``outputs`` only. Returns a scalar.

    Raises:
        ArgumentError: If ``reduction`` is unknown; else, as the next two, when :class:`VGGLoss` raises it.
        DownloadError: If VGG's weights are neither there nor can be downloaded.
        WeightsError: If their file is missing, damaged, or of another network.
        ShapeError: If outputs and input have different numbers of images or channels.

    Example:
        >>> loss = MultiScalePerceptualLoss(nn.AvgPool2d(2), reduction="sum")
        >>> image = torch.zeros(1, 3, 8, 8)
        >>> loss([image[..., ::2, ::2] + 0.25, image + 0.5], image)
        tensor(0.7500)
    """

    def __init__(
        self,
        features: VGG | nn.Module = "vgg16",
        *,
        layers: Sequence[str] | None = None,
        layer_weights: Sequence[float] | None = None,
        weights: str | os.PathLike[str] | None = None,
        normalize: bool = False,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        if reduction not in get_args(Reduction):
            raise ArgumentError(f"`reduction` must be 'mean' or 'sum', but is {reduction!r}")
        if layers is None and isinstance(features, str):
            layers = list(_BLUR2BLUR)
            layer_weights = layer_weights or list(_BLUR2BLUR.values())
        self.reduction = reduction
        self._features = _FrozenFeatures(features, layers, layer_weights, weights, normalize)

    def forward(self, outputs: Tensor | Sequence[Tensor], image: Tensor) -> Tensor:
        """Return the scalar loss."""
        finest_scale(outputs)  # refuses what holds no image
        outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        check_images(image=image)
        if not outputs or any(output.shape[:2] != image.shape[:2] for output in outputs):
            raise ShapeError(
                f"`outputs` must be images like the input, {tuple(image.shape)}, at one or several sizes, but have the "
                f"shapes {[tuple(output.shape) for output in outputs]}"
            )
        losses = [
            self._features.distance(
                output, F.interpolate(image, output.shape[2:], mode="bilinear", align_corners=False), F.l1_loss
            )
            for output in outputs
        ]
        total = torch.stack(losses).sum()
        return total / len(losses) if self.reduction == "mean" else total

    def extra_repr(self) -> str:
        """The options, for ``repr``."""
        return f"{self._features!r}, reduction={self.reduction!r}"


class _FrozenFeatures:
    """A frozen feature extractor.

    Not an ``nn.Module``, so torch does not see it: it belongs neither into checkpoints nor into the parameters that
    are counted, averaged or turned to bfloat16.
    """

    def __init__(
        self,
        features: VGG | nn.Module,
        layers: Sequence[str] | None,
        layer_weights: Sequence[float] | None,
        weights: str | os.PathLike[str] | None,
        normalize: bool,
    ) -> None:
        self.network: nn.Module | None = None
        if isinstance(features, nn.Module):
            if layers is not None or weights is not None:
                raise ArgumentError("`layers` and `weights` belong to VGG; leave them out where `features` is a module")
            self.network = copy.deepcopy(features).requires_grad_(False).eval()
            self.name = type(features).__name__
        else:
            layers = layers or ()
            check_vgg_layers(features, layers)
            self.make = partial(VGGFeatures, features, layers, weights)
            self.name = f"{features!r}, layers={list(layers)}"
        if layers is not None and layer_weights is not None and len(layers) != len(layer_weights):
            raise ArgumentError(
                f"{len(layers)} layers need as many `layer_weights`, but there are {len(layer_weights)}"
            )
        self.layer_weights = layer_weights
        self.normalize = normalize and not getattr(features, "normalizes", False)

    def distance(self, image: Tensor, target: Tensor, distance: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """The weighted sum of the maps' distances; gradients reach ``image`` only."""
        maps = self.maps(image)
        with torch.no_grad():
            targets = self.maps(target)
        weights = self.layer_weights or [1.0] * len(maps)
        if len(weights) != len(maps):
            raise ArgumentError(f"`features` returned {len(maps)} maps, but there are {len(weights)} `layer_weights`")
        return torch.stack(
            [weight * distance(one, other) for weight, one, other in zip(weights, maps, targets, strict=True)]
        ).sum()

    def maps(self, image: Tensor) -> list[Tensor]:
        image = image.to(torch.promote_types(image.dtype, torch.float32))
        if self.normalize:
            image = (image - image.new_tensor(_MEAN)) / image.new_tensor(_STD)
        maps = self.on(image)(image)
        return [each.to(torch.promote_types(each.dtype, torch.float32)) for each in _as_list(maps)]

    def on(self, image: Tensor) -> nn.Module:
        """The network on the image's device and in its precision."""
        with torch.inference_mode(False):  # weights that are loaded or moved in a test must still serve in training
            network = self.network = self.network or self.make()
            first = next(chain(network.parameters(), network.buffers()), image)
            if (first.device, first.dtype) != (image.device, image.dtype):
                network.to(image.device, image.dtype)
        return network

    def __repr__(self) -> str:
        return f"{self.name}, layer_weights={self.layer_weights}, normalize={self.normalize}"


# What ImageNet's classifiers subtract and divide by.
_MEAN = [[[0.485]], [[0.456]], [[0.406]]]
_STD = [[[0.229]], [[0.224]], [[0.225]]]


def _as_list(maps: Tensor | Sequence[Tensor]) -> list[Tensor]:
    found = [maps] if isinstance(maps, Tensor) else maps
    if not isinstance(found, list | tuple) or not found or not all(isinstance(each, Tensor) for each in found):
        raise ArgumentError(f"`features` must return a tensor or a list of tensors, but returned {type(maps).__name__}")
    return list(found)
