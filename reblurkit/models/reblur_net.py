"""The reblurring network M_R."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from reblurkit.errors import ArgumentError
from reblurkit.models.layers import ResBlock, fold_pixels, same_conv


class ReblurNet(nn.Module):
    """The reblurring network M_R of Nah et al., *Clean Images are Hard to Reblur* (2021), Table S3.

    5x5 convolutions throughout, no strides ("to avoid deconvolution artifacts"), so any image size will do. The table
    prints the residual blocks at a quarter of the size, which contradicts this sentence and its own last row; they
    run at full size here.

    The paper leaves open how the ends look. As in the authors' earlier residual network, the first convolution has no
    activation, images are shifted to be centred on 0, and there is no residual from input to output: with one, the
    identity that equation 3 asks for would come for free.

    Args:
        blocks: Number n of residual blocks: 1 balances PSNR and perceptual quality, 2 favours the latter (section
            S2).
        width: Channels; 64 in the paper.
        fold: Side of the squares of pixels that are folded into channels first, and unfolded at the end. With 2 the
            layers run at half the size: a quarter of the arithmetic at the same width, and twice the field of view.
            Not from the paper; 1 is the paper's. Sizes that do not divide are padded by repeating the border.
        global_residual: Add the input to the output.
        identity: Start with an output that is the input, by a global residual and a last layer of zeros. Not for M_R,
            but as a generator of :class:`reblurkit.Blur2BlurTranslator` at full resolution.

    Shape:
        ``(B, 3, H, W)`` in [0, 1] to the same shape.

    Raises:
        ArgumentError: If ``blocks``, ``width`` or ``fold`` is out of range.

    Example:
        >>> sum(p.numel() for p in ReblurNet(blocks=1).parameters())
        214595
    """

    def __init__(
        self,
        blocks: int = 1,
        width: int = 64,
        fold: int = 1,
        global_residual: bool = False,
        identity: bool = False,
    ) -> None:
        super().__init__()
        if blocks < 0 or width < 1 or fold < 1:
            raise ArgumentError(
                f"`blocks` must be at least 0, `width` and `fold` at least 1, but are {blocks}, {width} and {fold}"
            )
        self.fold = fold
        self.global_residual = global_residual or identity
        ends = 3 * fold**2
        self.layers = nn.Sequential(
            same_conv(ends, width, 5), *(ResBlock(width, 5) for _ in range(blocks)), same_conv(width, ends, 5)
        )
        if identity:
            for parameter in self.layers[-1].parameters():
                nn.init.zeros_(parameter)

    def forward(self, image: Tensor) -> Tensor:
        """Return the reblurred image."""
        if self.fold == 1:
            change: Tensor = self.layers(image - 0.5)
        else:
            height, width = image.shape[-2:]
            folded = fold_pixels(image - 0.5, self.fold, self.fold)
            change = F.pixel_shuffle(self.layers(folded), self.fold)[..., :height, :width]
        return (image if self.global_residual else 0.5) + change
