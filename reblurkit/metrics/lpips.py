"""Learned perceptual image patch similarity."""

from __future__ import annotations

import os
import warnings
from importlib.resources import as_file, files
from pathlib import Path
from typing import Literal

import lpips
import torch
from torch import Tensor, nn

from reblurkit.core.downloads import RemoteFile
from reblurkit.core.kept_files import files_are_needed
from reblurkit.errors import ArgumentError, ShapeError, WeightsError
from reblurkit.metrics.per_image import PerImageMetric
from reblurkit.models.vgg import VGG_WEIGHTS
from reblurkit.models.weight_files import read_state

# torchvision's ImageNet weights: AlexNet, VGG-16 and SqueezeNet 1.1. The digits in the names begin the checksums.
BACKBONES = {
    "alex": RemoteFile(
        "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
    ),
    "vgg": VGG_WEIGHTS["vgg16"],
    "squeeze": RemoteFile(
        "https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth",
        "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
    ),
}
_SMALLEST = {"alex": 31, "vgg": 16, "squeeze": 17}  # pixels a side, below which a layer has no output


class LPIPS(PerImageMetric):
    """LPIPS of Zhang et al., *The Unreasonable Effectiveness of Deep Features as a Perceptual Metric* (CVPR 2018).

    The number of the package ``lpips`` (version 0.1 of its heads), per image, then the mean over images; lower is
    better. Say the network with it: values of different ones cannot be compared. ``"alex"`` is the one to report;
    ``"vgg"`` is usual as a loss.

    Args:
        net: Backbone.
        weights: File of the backbone's weights as torchvision publishes them. None: downloaded once.

    Shape:
        ``update(preds, target)`` with ``(B, 3, H, W)``, clamped to [0, 1] and mapped to the package's [-1, 1] in
        float32, sides at least 31 (alex), 16 (vgg), 17 (squeeze); ``compute()`` returns a float64 scalar.

    Raises:
        ArgumentError: If ``net`` is none of the three.
        DownloadError: If the weights are neither there nor can be downloaded.
        WeightsError: If the file is missing, damaged, or of another network.

    Example:
        >>> LPIPS("resnet")
        Traceback (most recent call last):
        reblurkit.errors.ArgumentError: `net` must be one of 'alex', 'vgg', 'squeeze', but is 'resnet'
    """

    higher_is_better = False

    def __init__(
        self, net: Literal["alex", "vgg", "squeeze"] = "alex", weights: str | os.PathLike[str] | None = None
    ) -> None:
        super().__init__()
        if net not in BACKBONES:
            raise ArgumentError(f"`net` must be one of {', '.join(map(repr, BACKBONES))}, but is {net!r}")
        self.net = net
        # In a tuple, torch does not see it: a frozen backbone belongs neither into checkpoints nor into the
        # parameters that are counted, averaged or turned to bfloat16.
        self._distance: tuple[nn.Module, ...] = ()
        if not files_are_needed():
            return
        if weights is None:
            weights = BACKBONES[net].fetch(f"pass `weights=` the path of a copy, or leave out LPIPS({net!r})")
        self._distance = (_load(net, Path(weights)),)

    def per_image(self, preds: Tensor, target: Tensor) -> Tensor:
        """LPIPS of each image."""
        _, channels, *size = preds.shape
        if channels != 3 or min(size) < _SMALLEST[self.net]:
            raise ShapeError(
                f"LPIPS({self.net!r}) needs images of 3 channels and at least {_SMALLEST[self.net]} x "
                f"{_SMALLEST[self.net]} pixels, but came {channels} channels of {tuple(size)}"
            )
        (distance,) = self._distance
        images = (image.clamp(0, 1).float() for image in (preds, target))
        with torch.autocast(preds.device.type, enabled=False):
            values: Tensor = distance.to(preds.device)(*images, normalize=True)
        return values.flatten().double()


def _load(net: str, weights: Path) -> nn.Module:
    """The package's module with the backbone of a file and the heads that come with the package.

    The package itself would download without a checksum and unpickle whatever it finds.
    """
    # On "meta" nothing is initialised: no time spent, and the user's random numbers stay as they are.
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore", UserWarning)  # the package uses an argument that torchvision renamed
        module: nn.Module = lpips.LPIPS(net=net, pretrained=False, pnet_rand=True, verbose=False)
    with as_file(files(lpips) / "weights" / "v0.1" / f"{net}.pth") as heads:
        state = read_state(heads)
    backbone = read_state(weights)
    try:
        # "net.slice2.3.weight" is torchvision's "features.3.weight"
        for name in (name for name in module.state_dict() if name.startswith("net.")):
            state[name] = backbone["features." + name.split(".", 2)[2]]
        # the package lists each head twice and keeps two constants as buffers, neither is in the files
        module.load_state_dict(state, strict=False, assign=True)
    except (KeyError, RuntimeError) as error:
        reason = f"misses {error}" if isinstance(error, KeyError) else str(error).splitlines()[-1].strip()
        raise WeightsError(f"{weights} must hold torchvision's weights for LPIPS({net!r}), but {reason}") from error
    return module.requires_grad_(False).eval()
