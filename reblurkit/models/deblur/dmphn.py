"""DMPHN and DHN, the hierarchical networks with and without patches."""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from einops import rearrange
from torch import Tensor, nn

from reblurkit.core.checks import check_size
from reblurkit.errors import ArgumentError
from reblurkit.models.layers import same_conv


class DMPHN(nn.Module):
    """The network of Zhang et al., *Deep Stacked Hierarchical Multi-patch Network for Image Deblurring* (2019).

    From the last level to the first, an encoder sees the image plus what the decoder of the level before made of it,
    cut into patches; its features, joined and added to those of the level before, go to the level's decoder, cut as
    the next level cuts. The output is the last decoder's, without a residual to the input. Without patches it is the
    DHN of Nah et al., *Clean Images are Hard to Reblur* (2021), section S1, which names the variant without its data
    flow: here it is DMPHN's with one patch everywhere. Images are shifted to be centred on 0. Convolutions start
    from N(0, 0.5 sqrt(2 / (k k out))), biases at 0, as the authors'.

    The state dicts of ``encoders[n - 1]`` and ``decoders[n - 1]`` are those of the authors' files ``encoder_lvN.pkl``
    and ``decoder_lvN.pkl``; :meth:`official_key` names the entry.

    Args:
        levels: Patches of each level, from the first, each a power of 2: 2 are an upper and a lower half, 4 also a
            left and a right one, and so on in turns.
        patches: Cut into patches; else ``levels`` gives the number of levels alone.
        widths: Channels at full, half and quarter size.

    Shape:
        ``(B, 3, H, W)`` in [0, 1], H and W multiples of ``multiple``, to the same shape, not clamped.

    Raises:
        ArgumentError: If ``levels`` or ``widths`` make no network.
        ShapeError: If H and W do not divide by ``multiple``.

    Example:
        >>> sum(p.numel() for p in DMPHN().parameters())
        7232524
    """

    def __init__(
        self, levels: Sequence[int] = (1, 2, 4, 8), patches: bool = True, widths: Sequence[int] = (32, 64, 128)
    ) -> None:
        super().__init__()
        if not levels or any(count < 1 or count & (count - 1) for count in levels) or levels[0] != 1:
            raise ArgumentError(f"`levels` must be powers of 2, the first 1, but are {tuple(levels)}")
        if len(widths) != 3 or min(widths) < 1:
            raise ArgumentError(f"`widths` must be three positive numbers, but are {tuple(widths)}")
        self.grids = [_grid(count) if patches else (1, 1) for count in levels]
        self.multiple = 4 * max(rows for rows, _ in self.grids)
        self.encoders = nn.ModuleList(_encoder(widths) for _ in levels)
        self.decoders = nn.ModuleList(_decoder(widths) for _ in levels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                fan_out = math.prod(module.kernel_size) * module.out_channels
                nn.init.normal_(module.weight, std=0.5 * math.sqrt(2 / fan_out))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, blurry: Tensor) -> Tensor:
        """Return the deblurred image."""
        check_size(blurry, self.multiple)
        image = blurry - 0.5
        features, decoded = None, None
        for level in reversed(range(len(self.grids))):
            encoded = _by_patches(
                self.encoders[level], image if decoded is None else image + decoded, self.grids[level]
            )
            features = encoded if features is None else encoded + features
            decoded = _by_patches(self.decoders[level], features, self.grids[max(level - 1, 0)])
        assert decoded is not None
        return decoded + 0.5

    @staticmethod
    def official_key(key: str) -> str:
        """The state-dict key of an entry of the authors' files, called ``stem of the file.key``; others stay as is.

        Example:
            >>> DMPHN.official_key("encoder_lv2.layer1.weight")
            'encoders.1.layer1.weight'
        """
        found = re.fullmatch(r"(encoder|decoder)_lv(\d+)\.(.+)", key)
        return f"{found[1]}s.{int(found[2]) - 1}.{found[3]}" if found else key

    @classmethod
    def convert_state_dict(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of published files by this network's names, for :func:`reblurkit.models.load_weights`."""
        return {cls.official_key(name): value for name, value in state.items()}


def _grid(count: int) -> tuple[int, int]:
    """Rows and columns of ``count`` patches: the height is halved first."""
    halvings = count.bit_length() - 1
    return 2 ** ((halvings + 1) // 2), 2 ** (halvings // 2)


def _by_patches(network: nn.Module, image: Tensor, grid: tuple[int, int]) -> Tensor:
    """Run a network on every patch of a grid by itself."""
    rows, columns = grid
    patches = rearrange(image, "b c (r h) (s w) -> (b r s) c h w", r=rows, s=columns)
    output: Tensor = rearrange(network(patches), "(b r s) c h w -> b c (r h) (s w)", r=rows, s=columns)
    return output


def _encoder(widths: Sequence[int]) -> nn.Sequential:
    full, half, quarter = widths
    layers = {1: same_conv(3, full, 3), 2: _Residual(full), 3: _Residual(full)}
    layers |= {5: same_conv(full, half, 3, stride=2), 6: _Residual(half), 7: _Residual(half)}
    layers |= {9: same_conv(half, quarter, 3, stride=2), 10: _Residual(quarter), 11: _Residual(quarter)}
    return _numbered(layers)


def _decoder(widths: Sequence[int]) -> nn.Sequential:
    full, half, quarter = widths
    layers: dict[int, nn.Module] = {13: _Residual(quarter), 14: _Residual(quarter)}
    layers |= {16: nn.ConvTranspose2d(quarter, half, 4, stride=2, padding=1), 17: _Residual(half), 18: _Residual(half)}
    layers |= {20: nn.ConvTranspose2d(half, full, 4, stride=2, padding=1), 21: _Residual(full), 22: _Residual(full)}
    layers |= {24: same_conv(full, 3, 3)}
    return _numbered(layers)


def _numbered(layers: dict[int, nn.Module]) -> nn.Sequential:
    """Layers under the names of the authors' files, whose numbers have gaps."""
    return nn.Sequential(OrderedDict((f"layer{number}", layer) for number, layer in layers.items()))


class _Residual(nn.Sequential):
    """x + conv(ReLU(conv(x))), with the keys of the authors' files."""

    def __init__(self, width: int) -> None:
        super().__init__(same_conv(width, width, 3), nn.ReLU(inplace=True), same_conv(width, width, 3))

    def forward(self, features: Tensor) -> Tensor:
        change = features
        for layer in self:
            change = layer(change)
        return features + change
