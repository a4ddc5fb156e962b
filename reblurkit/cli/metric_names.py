"""How metrics are shown: with which digits, and which end is the better one."""

from __future__ import annotations

import re
from typing import Literal

# Others, such as reblur_psnr, are good or bad by what is trained, and what is measured of an input is neither.
_HIGHER = re.compile(r"(content_|preserved_)?(psnr|ssim)(_.+)?")
_LOWER = re.compile(r"(niqe|lpips|deep_distance|gradient_distance|colour_shift)(_.+)?")
_ONE = re.compile(r"gradient_ratio")
_INPUTS = re.compile(r".*_(blurry|sharp|alone|deblurred)")

Arrow = Literal["↑", "↓", "→ 1", ""]


def arrow(name: str) -> Arrow:
    """Where a metric is better.

    Args:
        name: As it is logged, for instance ``val/psnr``.

    Example:
        >>> arrow("val/psnr"), arrow("lpips_vgg"), arrow("test/gradient_ratio"), arrow("val/psnr_blurry")
        ('↑', '↓', '→ 1', '')
    """
    word = name.rpartition("/")[2].partition("_epoch")[0]
    if _INPUTS.fullmatch(word):
        return ""
    ends: dict[Arrow, re.Pattern[str]] = {"↑": _HIGHER, "↓": _LOWER, "→ 1": _ONE}
    return next((end for end, names in ends.items() if names.fullmatch(word)), "")


def title(name: str) -> str:
    """A metric's name with its unit, where it has one, and its arrow.

    Example:
        >>> title("test/psnr"), title("ssim"), title("loss")
        ('test/psnr (dB) ↑', 'ssim ↑', 'loss')
    """
    unit = "(dB)" if "psnr" in name.rpartition("/")[2] else ""
    return " ".join(filter(None, [name, unit, arrow(name)]))


def short_number(value: float) -> str:
    """Two places of a number such as 28.16, otherwise four digits.

    Example:
        >>> short_number(28.0), short_number(0.60034)
        ('28.00', '0.6003')
    """
    return f"{value:.2f}" if 10 <= abs(value) < 1000 else f"{value:.4g}"
