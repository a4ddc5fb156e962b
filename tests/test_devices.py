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
from reblurkit.metrics import NIQE, PSNR, ColourShift, GradientStatistics, fit_pristine
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


# What a network is called with, where that is not one batch of images.
INPUTS = {
    "dbn": [(2, 5, 3, 64, 64)],
    "kernel-wizard": [(1, 3, 256, 256)] * 2,
    **dict.fromkeys(list_models("flow"), [(1, 3, 128, 128)] * 2),
}
# TV-L1 is a function of scikit-image, on the CPU; RAFT is torchvision's, which sends sizes to the device.
NETWORKS = sorted(set(list_models()) - {"tvl1", "raft-small", "raft-large"})


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name):
    network = create_model(name).to(META)
    values = [images(*size) for size in INPUTS.get(name, [(2, 3, 128, 128)])]
    assert watched(lambda: network(*values)) == []


def test_losses():
    network, reblur_net = ReblurNet(1, 4).to(META), ReblurNet(1, 4).to(META)
    blurry, sharp = images(), images()
    deblurred = images().requires_grad_()
    discriminator = create_model("patchgan").to(META)
    flows = [images(1, 2, 64, 64) for _ in range(2)]
    runs = {
        "ReblurLoss": lambda: losses.ReblurLoss(network, reblur_net)(deblurred, sharp, blurry),
        "blur_reconstruction_loss": lambda: losses.blur_reconstruction_loss(reblur_net, deblurred, blurry),
        "reblur_loss": lambda: losses.reblur_loss(reblur_net, deblurred, sharp),
        "self_reblur_loss": lambda: losses.self_reblur_loss(reblur_net, deblurred),
        "sharpness_preservation_loss": lambda: losses.sharpness_preservation_loss(reblur_net, deblurred),
        "CharbonnierLoss": lambda: losses.CharbonnierLoss()(deblurred, sharp),
        "FrequencyLoss": lambda: losses.FrequencyLoss()(deblurred, sharp),
        "MultiScaleLoss": lambda: losses.MultiScaleLoss(nn.L1Loss())([deblurred[..., ::2, ::2], deblurred], sharp),
        "gradient_penalty": lambda: losses.gradient_penalty(discriminator, sharp, deblurred.detach()),
        "warp": lambda: flow_warp_blur(deblurred, *flows).mean(),
    }
    runs |= {
        f"AdversarialLoss({kind})": lambda kind=kind: losses.AdversarialLoss(kind).generator(discriminator(deblurred))
        for kind in ("vanilla", "hinge", "wgan")
    }
    found = {name: watched(run) for name, run in runs.items()}
    assert not any(found.values()), found


# SSIM is kornia's, which asks for the autocast of the device; meta has none.
@pytest.mark.parametrize("metric", [PSNR(), GradientStatistics(), ColourShift()], ids=lambda m: type(m).__name__)
def test_metrics(metric):
    metric = metric.to(META)
    metric._check_range = lambda **images: None  # values of this device cannot be read
    metric.update(images(), images())
    assert all(leaf.device == META for leaf in tree_leaves(metric.compute()))


def test_niqe_takes_images_of_another_device_than_its_model():
    niqe = NIQE(fit_pristine(torch.rand(2, 3, 192, 192), sharpness=0.0))
    assert niqe.per_image(images(2, 3, 192, 192), images(2, 3, 192, 192)).device == META
