"""No public module makes a tensor on the CPU when its input is elsewhere.

The ``meta`` device stands for a GPU: torch refuses to mix it with the CPU, and a mode looks at what is made.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from reblurkit import losses
from reblurkit.blur import FlowKernelBlur, FlowLineBlur, flow_kernel_mask, flow_warp_blur
from reblurkit.metrics import NIQE, PSNR, SSIM, ColourShift, GradientStatistics, ReblurPSNR, fit_pristine
from reblurkit.models import ReblurNet, create_model, list_models

META = torch.device("meta")


class Elsewhere(TorchDispatchMode):
    """Notes every operator that makes a tensor on the CPU or reads one back from the device."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if any(isinstance(leaf, torch.Tensor) and leaf.device.type == "cpu" for leaf in tree_leaves(result)):
            self.found.append(str(func))
        return result


def images(*size):
    return torch.rand(size or (1, 3, 64, 64), device=META)


def watched(run):
    """What ``run`` makes on the CPU, forward and backward."""
    with Elsewhere() as mode:
        leaves = [leaf for leaf in tree_leaves(run()) if isinstance(leaf, torch.Tensor)]
        assert all(leaf.device == META for leaf in leaves)
        if any(leaf.requires_grad for leaf in leaves):
            sum(leaf.sum() for leaf in leaves if leaf.requires_grad).backward()
    return mode.found


@pytest.mark.parametrize("samples", [1, 3])
def test_the_warped_blur_can_be_captured_in_a_cuda_graph(samples):
    inputs = [images(1, channels, 9, 8).requires_grad_() for channels in (3, 2, 2)]
    assert watched(lambda: flow_warp_blur(*inputs, samples=samples)) == []


@pytest.mark.parametrize("blur", [FlowKernelBlur(), FlowLineBlur()], ids=["table", "line"])
def test_the_other_blurs(blur):
    inputs = [images(1, channels, 9, 8).requires_grad_() for channels in (3, 2, 2)]
    assert watched(lambda: blur(*inputs)) == []
    assert watched(lambda: flow_kernel_mask(*inputs[1:])) == []


@pytest.mark.parametrize("name", sorted(set(list_models()) - {"tvl1"}))  # TV-L1 is a function of scikit-image
def test_networks(name):
    network = create_model(name).to(META).train()
    inputs = {"flow": 2, "transfer": 2}
    kind = next(kind for kind in ("deblur", "flow", "reblur", "discriminator", "transfer") if name in list_models(kind))
    size = (2, 3, 128, 128)
    values = [images(*size) for _ in range(inputs.get(kind, 1))]
    assert watched(lambda: network(*values)) == []
