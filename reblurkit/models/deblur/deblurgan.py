"""The generator of DeblurGAN."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from reblurkit.core.checks import check_size
from reblurkit.errors import ArgumentError, WeightsError


class DeblurGAN(nn.Module):
    """The generator of Kupyn et al., *DeblurGAN* (2018).

    Convolutions and transposed convolutions with instance normalisation around residual blocks of two convolutions
    each, as published; the authors' repository lost the second one in a rewrite of March 2019, see
    :func:`has_one_convolution_per_block`. [0, 1] is mapped to their [-1, 1] inside. Weights start from N(0, 0.02),
    biases at 0, as theirs.

    Dropout follows the mode of the module as any other: on in training, off after ``eval()``. The authors' test
    program leaves it on; ``network.train()`` does so here, and changes nothing else: instance statistics are always
    the image's own.

    Keys are those of the authors' files ``model.N.*``, trained with dropout; :meth:`official_key` names the entry of a
    key of a file trained without. Files of old PyTorch versions also hold running statistics, which nothing reads.

    Args:
        blocks: Residual blocks at a quarter of the size.
        width: Channels at full size; 2 and 4 times as many at half and a quarter.
        dropout: Probability, in the residual blocks.
        global_residual: Add the input to the output and clamp, as the authors do.

    Shape:
        ``(B, 3, H, W)`` in [0, 1], H and W multiples of 4 and at least 8, to the same shape in [0, 1].

    Raises:
        ArgumentError: If ``blocks``, ``width`` or ``dropout`` is out of range.
        ShapeError: If H and W do not divide by 4 or are less than 8.

    Example:
        >>> sum(p.numel() for p in DeblurGAN().parameters())
        11378179
    """

    multiple = 4
    smallest = 8

    def __init__(self, blocks: int = 9, width: int = 64, dropout: float = 0.5, global_residual: bool = True) -> None:
        super().__init__()
        if blocks < 0 or width < 1 or not 0 <= dropout < 1:
            raise ArgumentError(
                "`blocks` must be at least 0, `width` at least 1, and `dropout` in [0, 1), "
                f"but are {blocks}, {width} and {dropout}"
            )
        self.global_residual = global_residual
        half, quarter = 2 * width, 4 * width
        self.model = nn.Sequential(
            nn.ReflectionPad2d(3),
            *_normalised(nn.Conv2d(3, width, 7)),
            *_normalised(nn.Conv2d(width, half, 3, stride=2, padding=1)),
            *_normalised(nn.Conv2d(half, quarter, 3, stride=2, padding=1)),
            *(_Block(quarter, dropout) for _ in range(blocks)),
            *_normalised(nn.ConvTranspose2d(quarter, half, 3, stride=2, padding=1, output_padding=1)),
            *_normalised(nn.ConvTranspose2d(half, width, 3, stride=2, padding=1, output_padding=1)),
            nn.ReflectionPad2d(3),
            nn.Conv2d(width, 3, 7),
            nn.Tanh(),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.bias is not None:
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, blurry: Tensor) -> Tensor:
        """Return the deblurred image."""
        check_size(blurry, self.multiple, self.smallest)
        centred = 2 * blurry - 1
        deblurred: Tensor = self.model(centred)
        if self.global_residual:
            deblurred = torch.clamp(centred + deblurred, -1, 1)
        return (deblurred + 1) / 2

    @staticmethod
    def official_key(key: str) -> str:
        """The state-dict key of an entry of the authors' files, trained with or without dropout.

        Without, the second convolution of a block moves up by one place.

        Example:
            >>> DeblurGAN.official_key("model.10.conv_block.5.bias")
            'model.10.conv_block.6.bias'
        """
        return re.sub(r"(conv_block)\.5\.", r"\1.6.", key)

    @classmethod
    def convert_state_dict(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of published files by this network's names, for :func:`reblurkit.models.load_weights`.

        Raises:
            WeightsError: If the file is of the later generator with one convolution in each block.
        """
        if has_one_convolution_per_block(state):
            raise WeightsError(
                "these weights have one convolution in each residual block: the authors' repository lost the other in "
                "March 2019, by accident, and such a file is not the published network; take the weights that its "
                "README links to, which are older"
            )
        return {cls.official_key(name): value for name, value in state.items()}


def has_one_convolution_per_block(keys: Iterable[str]) -> bool:
    """Whether these are the keys of a generator that the authors' repository made after March 2019.

    A slip in operator precedence left its residual blocks with one convolution, 6,067,459 parameters in all. It is
    not the published network, and :class:`DeblurGAN` cannot take its weights; files from before have two.

    Example:
        >>> has_one_convolution_per_block(["model.1.weight", "model.10.conv_block.1.weight"])
        True
    """
    places = {found[1] for key in keys if (found := re.search(r"\bconv_block\.(\d+)\.weight$", key))}
    return "1" in places and not places & {"5", "6"}


def _normalised(convolution: nn.Conv2d | nn.ConvTranspose2d) -> list[nn.Module]:
    return [convolution, nn.InstanceNorm2d(convolution.out_channels), nn.ReLU(inplace=True)]


class _Block(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            *_normalised(nn.Conv2d(width, width, 3)),
            nn.Dropout(dropout),
            nn.ReflectionPad2d(1),
            *_normalised(nn.Conv2d(width, width, 3))[:2],
        )

    def forward(self, features: Tensor) -> Tensor:
        output: Tensor = features + self.conv_block(features)
        return output
