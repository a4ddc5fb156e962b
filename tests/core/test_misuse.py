"""What a function of the package cannot take is told by an error of the package."""

from __future__ import annotations

import pytest
import torch

from reblurkit.adaptation import match_histogram
from reblurkit.data import DemoPhotos
from reblurkit.errors import ArgumentError
from reblurkit.losses import LayerFeatures

IMAGE = torch.rand(1, 3, 8, 8)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: match_histogram(IMAGE, IMAGE, bins="many"), "histogram bins"),
        (lambda: match_histogram(IMAGE, IMAGE, bins=float("inf")), "histogram bins"),
        (lambda: match_histogram(IMAGE, IMAGE, bins=float("nan")), "histogram bins"),
        (lambda: match_histogram(IMAGE * float("nan"), IMAGE), "`image`"),
        (lambda: match_histogram(IMAGE, IMAGE * float("nan"), bins=None), "`reference`"),
        (lambda: DemoPhotos("val"), "`split`"),
        (lambda: DemoPhotos(blur="motion"), "`blur`"),
        (lambda: DemoPhotos(crop=float("nan")), "`crop`"),
        (lambda: DemoPhotos(crops_per_photo=-1), "`crops_per_photo`"),
        (lambda: LayerFeatures("unet", ["down1"]), "`network`"),
    ],
)
def test_misuse_is_told(call, named):
    with pytest.raises(ArgumentError, match=named):
        call()
