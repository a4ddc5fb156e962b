"""KernelWizard, which takes the blur of one image and puts it on another."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reblurkit.core.checks import check_images, check_size
from reblurkit.errors import ArgumentError, ShapeError

CROP = "crop or pad it, and the pair that the code comes from, to the same size"


class KernelWizard(nn.Module):
    """The blur transfer network of Tran et al., *Explore Image Deblurring via Encoded Blur Kernel Space* (2021).

    :meth:`kernel` finds the code of the blur between a sharp and a blurry image, and :meth:`blur` gives it to any
    sharp image of the same size. A code is a map at 1/128 of the size, so blur may differ from place to place, and a
    code fits images of its own size alone.

    The adapter goes up by transposed convolutions, as in the copy of the network that *Blur2Blur* (2024) runs with the
    authors' published weights; an earlier form of their program enlarged and convolved instead. Keys are those of
    the published files.

    Args:
        width: Channels of the features; 64 in the paper.
        code_width: Channels of the code; 512 in the paper.
        vae: Learn a mean and a deviation of the code instead of the code alone, from which :meth:`kernel` draws.
        front_blocks: Residual blocks of the feature extractor.
        back_blocks: Residual blocks of the reconstruction.

    Attributes:
        multiple: What height and width must divide by: 128.
        smallest: The shortest side that a pair whose code is taken may have: 256.

    Shape:
        Two tensors ``(B, 3, H, W)`` in [0, 1] to one such tensor, not clamped.

    Raises:
        ArgumentError: If a number of blocks or a width makes no network.
        ShapeError: If images do not fit to each other, or height or width does not divide by 128, or is less than
            256 where a code is taken.

    Example:
        >>> import torch
        >>> wizard = KernelWizard(width=4, code_width=8, front_blocks=1, back_blocks=1)
        >>> kernel = wizard.kernel(torch.rand(1, 3, 256, 384), torch.rand(1, 3, 256, 384))
        >>> kernel.shape, wizard.blur(torch.rand(1, 3, 256, 384), kernel).shape
        (torch.Size([1, 8, 2, 3]), torch.Size([1, 3, 256, 384]))
    """

    multiple: int = 128
    smallest: int = 256

    def __init__(
        self,
        width: int = 64,
        code_width: int = 512,
        *,
        vae: bool = False,
        front_blocks: int = 10,
        back_blocks: int = 20,
    ) -> None:
        super().__init__()
        if min(width, code_width) < 1 or min(front_blocks, back_blocks) < 0:
            raise ArgumentError(
                "`width` and `code_width` must be at least 1 and the numbers of blocks at least 0, but they are "
                f"{width} and {code_width}, {front_blocks} and {back_blocks}"
            )
        self.vae = vae
        self.feature_extractor = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
            nn.LeakyReLU(0.1),
            *(Residual(width) for _ in range(front_blocks)),
        )
        self.kernel_extractor = KernelExtractor(width, 2 * code_width if vae else code_width)
        self.adapter = Adapter(width, code_width)
        self.recon_trunk = nn.Sequential(
            *(Residual(width) for _ in range(back_blocks)),
            nn.Conv2d(width, 4 * width, 3, padding=1),
            nn.PixelShuffle(2),
            nn.LeakyReLU(0.1),
            nn.Conv2d(width, 4 * width, 3, padding=1),
            nn.PixelShuffle(2),
            nn.LeakyReLU(0.1),
            nn.Conv2d(width, width, 3, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(width, 3, 3, padding=1),
        )

    def forward(self, sharp: Tensor, blurry: Tensor) -> Tensor:
        """Take the blur from a pair and put it on the pair's own sharp image: what training compares to ``blurry``."""
        return self.blur(sharp, self.kernel(sharp, blurry))

    def kernel(self, sharp: Tensor, blurry: Tensor) -> Tensor:
        """The code of the blur that turns ``sharp`` into ``blurry``.

        With ``vae=True`` it is drawn, in evaluation too, as in the authors' program; for the same code every time take
        the mean of :meth:`distribution`.

        Args:
            sharp: ``(B, 3, H, W)``.
            blurry: The same, blurry.

        Returns:
            ``(B, code_width, H/128, W/128)``.
        """
        mean, deviation = self.distribution(sharp, blurry)
        return mean if deviation is None else mean + deviation * torch.randn_like(mean)

    def distribution(self, sharp: Tensor, blurry: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mean and deviation of the code; the deviation, which may have either sign, is None without ``vae``."""
        check_images(sharp=sharp, blurry=blurry)
        check_size(sharp, self.multiple, smallest=self.smallest, advice=CROP)
        code = self.kernel_extractor(self.feature_extractor(sharp), self.feature_extractor(blurry))
        if not self.vae:
            return code, None
        mean, deviation = code.chunk(2, dim=1)
        return mean, deviation

    def blur(self, sharp: Tensor, kernel: Tensor) -> Tensor:
        """Blur a sharp image with a code.

        Args:
            sharp: ``(B, 3, H, W)``.
            kernel: ``(B, code_width, H/128, W/128)``: a code of :meth:`kernel`, or noise (the authors draw unit normal
                noise for a network with ``vae``).

        Returns:
            The blurry image, ``(B, 3, H, W)``, not clamped.
        """
        check_size(sharp, self.multiple, advice=CROP)
        size = (sharp.shape[0], sharp.shape[-2] // self.multiple, sharp.shape[-1] // self.multiple)
        if kernel.ndim != 4 or (kernel.shape[0], *kernel.shape[-2:]) != size:
            raise ShapeError(
                f"`kernel` must be a code of {tuple(sharp.shape)}, (B, C, H/128, W/128), but its shape is "
                f"{tuple(kernel.shape)}; take it from a pair of images of that size"
            )
        blurry: Tensor = self.recon_trunk(self.adapter(self.feature_extractor(sharp), kernel)) + sharp
        return blurry


class KernelExtractor(nn.Module):
    """The function F of the paper: features of both images to a code at 1/32 of their size."""

    def __init__(self, width: int, code_width: int) -> None:
        super().__init__()
        widths = [width, *(min(width * 2**level, code_width) for level in range(1, 6))]
        # The published keys count the places of normalisation, which the published networks leave empty.
        layers = [nn.ReflectionPad2d(3), nn.Conv2d(2 * width, width, 7, bias=False), nn.Identity(), nn.ReLU()]
        for inputs, outputs in pairwise(widths):
            layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False), nn.Identity(), nn.ReLU()]
        self.model = nn.Sequential(*layers, *(ReflectResidual(widths[-1]) for _ in range(4)))

    def forward(self, sharp: Tensor, blurry: Tensor) -> Tensor:
        """Map two tensors ``(B, width, H, W)`` to ``(B, code_width, H/32, W/32)``."""
        code: Tensor = self.model(torch.cat((sharp, blurry), 1))
        return code


class Adapter(nn.Module):
    """The function G of the paper: a U-Net of five levels that takes in the code at its smallest size."""

    def __init__(self, width: int, code_width: int) -> None:
        super().__init__()
        level = Level(8 * width, 8 * width, 8 * width + code_width)
        level = Level(4 * width, 8 * width, 16 * width, level)
        level = Level(2 * width, 4 * width, 8 * width, level)
        level = Level(width, 2 * width, 4 * width, level)
        self.model = Level(width, width, 2 * width, level, outermost=True)

    def forward(self, features: Tensor, kernel: Tensor) -> Tensor:
        """Map ``(B, width, H, W)`` and ``(B, code_width, H/32, W/32)`` to ``(B, width, H, W)`` in [-1, 1]."""
        output: Tensor = self.model(features, kernel)
        return output


class Level(nn.Module):
    """One level of the adapter: down, the next level or the code, up, and a skip around it all."""

    def __init__(
        self, outer: int, inner: int, returned: int, submodule: Level | None = None, outermost: bool = False
    ) -> None:
        super().__init__()
        down = nn.Conv2d(outer, inner, 4, stride=2, padding=1, bias=False)
        up = nn.ConvTranspose2d(returned, outer, 4, stride=2, padding=1, bias=outermost)
        self.outermost = outermost
        self.down = nn.Sequential(down) if outermost else nn.Sequential(nn.LeakyReLU(0.2), down)
        self.submodule = submodule
        self.up = nn.Sequential(nn.ReLU(), up, nn.Tanh()) if outermost else nn.Sequential(nn.ReLU(), up)

    def forward(self, features: Tensor, kernel: Tensor) -> Tensor:
        """Map ``(B, outer, H, W)`` to the same shape, with the input beside it unless this is the outermost level."""
        inner = self.down(features)
        inner = torch.cat((inner, kernel), 1) if self.submodule is None else self.submodule(inner, kernel)
        output: Tensor = self.up(inner)
        return output if self.outermost else torch.cat((output, features), 1)


class Residual(nn.Module):
    """x + conv(ReLU(conv(x))), which starts near the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        for conv in (self.conv1, self.conv2):
            nn.init.kaiming_normal_(conv.weight)
            conv.weight.data *= 0.1
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]  # there is one

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, width, H, W)`` to the same shape."""
        output: Tensor = features + self.conv2(F.relu(self.conv1(features)))
        return output


class ReflectResidual(nn.Module):
    """A residual block with reflected borders and no biases."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3, bias=False),
            nn.Identity(),
            nn.ReLU(),
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3, bias=False),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, width, H, W)`` to the same shape."""
        output: Tensor = features + self.conv_block(features)
        return output
