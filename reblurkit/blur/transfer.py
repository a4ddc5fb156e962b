"""Blur taken from one pair of images and put on another image."""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn

from reblurkit.core.calls import Frozen, needs_of
from reblurkit.core.checks import check_images, check_size
from reblurkit.errors import ArgumentError
from reblurkit.models.starting_weights import start_from

_ADVICE = "cut the sharp image and the known pair to one such size (256 x 256 in Blur2Blur), or use ShakeBlur"


class BlurTransfer(nn.Module):
    """Puts the blur of a known pair on sharp images of another camera: Blur2Blur's known blur.

    Pham et al., *Blur2Blur* (CVPR 2024): real_B = G(S, F(D, C)), with a network of Tran et al., *Explore Image
    Deblurring via Encoded Blur Kernel Space* (2021), the code of the pair's blur F, and S a sharp image of the target
    camera. Runs without gradients and is clamped, neither of which the authors' program does.

    The network is no submodule: it is absent from parameters and checkpoints, and follows the images to their device.

    Args:
        kernel_wizard: A trained :class:`reblurkit.models.kernel_wizard.KernelWizard`, or any module with its ``kernel``
            and ``blur``; a frozen copy in evaluation mode is used.
        weights: File of its weights, see :func:`reblurkit.models.weights.load_weights`. None: it has them already.

    Attributes:
        needs_pairs: True: blur comes from a known pair, not from the sharp image alone.

    Shape:
        ``(sharp, known_blurry, known_sharp)``, each ``(B, 3, H, W)`` in [0, 1], H and W multiples of 128, at least
        256, to ``(B, 3, H, W)`` in [0, 1].

    Raises:
        ArgumentError: If the network has no ``kernel`` and ``blur``.
        ShapeError: If the images differ in shape, or a side does not fit the network.
        WeightsError: If the file does not fit the network.

    Example:
        >>> from reblurkit.models.kernel_wizard import KernelWizard
        >>> transfer = BlurTransfer(KernelWizard(width=4, code_width=8, front_blocks=1, back_blocks=1))
        >>> transfer(*torch.rand(3, 1, 3, 256, 256)).shape
        torch.Size([1, 3, 256, 256])
    """

    needs_pairs = True

    def __init__(self, kernel_wizard: nn.Module, weights: str | os.PathLike[str] | None = None) -> None:
        super().__init__()
        if not (hasattr(kernel_wizard, "kernel") and hasattr(kernel_wizard, "blur")):
            raise ArgumentError(
                f"`kernel_wizard` must have the methods kernel(sharp, blurry) and blur(sharp, kernel), as "
                f"reblurkit.models.create_model('kernel-wizard') has, but is {type(kernel_wizard).__name__}"
            )
        start_from(kernel_wizard, weights, trained=False)
        self._wizard = Frozen(kernel_wizard)

    @torch.no_grad()
    def forward(self, sharp: Tensor, known_blurry: Tensor, known_sharp: Tensor) -> Tensor:
        """Return the sharp images with the blur of the known pairs."""
        check_images(sharp=sharp, known_blurry=known_blurry, known_sharp=known_sharp)
        wizard = self._wizard.on(sharp)
        check_size(sharp, needs_of(wizard).multiple, advice=_ADVICE)
        blurry: Tensor = wizard.blur(sharp, wizard.kernel(known_sharp, known_blurry))  # type: ignore[operator]
        return blurry.clamp(0, 1)

    def extra_repr(self) -> str:
        """The network, for ``repr``."""
        return repr(self._wizard)
