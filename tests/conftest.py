"""What all tests share: a fixed seed, and small networks with the awkward layers of real ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


@pytest.fixture
def shared_data() -> Path:
    """Real images beside the checkout; tests that use them are extras, the suite is complete without."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real images are not at {SHARED_DATA}")
    return SHARED_DATA


class PlainNet(nn.Module):
    def __init__(self, width: int = 6):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 3, 3, padding=1))

    def forward(self, image):
        return image + self.body(image)


class BatchNormNet(PlainNet):
    def __init__(self, width: int = 6):
        super().__init__(width)
        self.body.insert(1, nn.BatchNorm2d(width))


class DropoutNet(PlainNet):
    def __init__(self, width: int = 6):
        super().__init__(width)
        self.body.insert(2, nn.Dropout(0.3))


class MultiScaleNet(PlainNet):
    def forward(self, image):
        full = super().forward(image)
        return [nn.functional.avg_pool2d(full, 4), nn.functional.avg_pool2d(full, 2), full]
