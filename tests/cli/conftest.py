"""What the tests of the command line share."""

from __future__ import annotations

import pytest

from reblurkit.models import FoldedUNet, ReblurNet
from reblurkit.models.pretrained import Pretrained


@pytest.fixture
def small_box(monkeypatch):
    """The demo with small networks in the box, which change nothing yet: those that deblur take minutes."""
    network, reblur_net = {"widths": [8, 8], "blocks": [1, 1]}, {"width": 4}
    card = {"network": {"arguments": network}, "reblur_net": {"arguments": reblur_net}}
    pair = FoldedUNet(**network).eval(), ReblurNet(**reblur_net).eval()
    monkeypatch.setattr("reblurkit.cli.demo.load_pretrained", lambda: Pretrained(*pair, card))
