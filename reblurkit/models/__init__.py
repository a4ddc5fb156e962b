"""Networks by name, and the files of weights that they load.

Networks are imported on first use: some need torchvision or timm, which take longer to import than torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reblurkit.models.deblur.dbn import DBN
    from reblurkit.models.deblur.deblurgan import DeblurGAN
    from reblurkit.models.deblur.deblurgan_v2 import DeblurGANv2
    from reblurkit.models.deblur.dmphn import DMPHN
    from reblurkit.models.deblur.mimo_unet import MIMOUNet
    from reblurkit.models.deblur.msresnet import MSResNet
    from reblurkit.models.deblur.nafnet import NAFNet
    from reblurkit.models.deblur.restormer import Restormer
    from reblurkit.models.deblur.srn import SRN
    from reblurkit.models.deblur.unet import UNet
    from reblurkit.models.flow.flownet_s import FlowNetS
    from reblurkit.models.flow.pwc_net import PWCNet
    from reblurkit.models.flow.raft import RAFT
    from reblurkit.models.flow.tvl1 import TVL1
    from reblurkit.models.full_size import FullSize
    from reblurkit.models.kernel_wizard import KernelWizard
    from reblurkit.models.patchgan import PatchGAN
    from reblurkit.models.reblur_net import ReblurNet
    from reblurkit.models.registry import create_model, list_models
    from reblurkit.models.vgg import VGGFeatures
    from reblurkit.models.weights import load_weights, save_weights

_HOME = {
    "DBN": "deblur.dbn",
    "DMPHN": "deblur.dmphn",
    "DeblurGAN": "deblur.deblurgan",
    "DeblurGANv2": "deblur.deblurgan_v2",
    "FlowNetS": "flow.flownet_s",
    "FullSize": "full_size",
    "KernelWizard": "kernel_wizard",
    "MIMOUNet": "deblur.mimo_unet",
    "MSResNet": "deblur.msresnet",
    "NAFNet": "deblur.nafnet",
    "PWCNet": "flow.pwc_net",
    "PatchGAN": "patchgan",
    "RAFT": "flow.raft",
    "ReblurNet": "reblur_net",
    "Restormer": "deblur.restormer",
    "SRN": "deblur.srn",
    "TVL1": "flow.tvl1",
    "UNet": "deblur.unet",
    "VGGFeatures": "vgg",
    "create_model": "registry",
    "list_models": "registry",
    "load_weights": "weights",
    "save_weights": "weights",
}
__all__ = [
    "DBN",
    "DMPHN",
    "RAFT",
    "SRN",
    "TVL1",
    "DeblurGAN",
    "DeblurGANv2",
    "FlowNetS",
    "FullSize",
    "KernelWizard",
    "MIMOUNet",
    "MSResNet",
    "NAFNet",
    "PWCNet",
    "PatchGAN",
    "ReblurNet",
    "Restormer",
    "UNet",
    "VGGFeatures",
    "create_model",
    "list_models",
    "load_weights",
    "save_weights",
]


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(importlib.import_module(f"reblurkit.models.{_HOME[name]}"), name)
    raise AttributeError(f"module 'reblurkit.models' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
