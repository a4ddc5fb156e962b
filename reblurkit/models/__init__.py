"""Networks: deblurring backbones and the reblurring network."""

from reblurkit.models.deblur.dbn import DBN
from reblurkit.models.deblur.deblurgan import DeblurGAN
from reblurkit.models.deblur.dmphn import DMPHN
from reblurkit.models.deblur.msresnet import MSResNet
from reblurkit.models.deblur.srn import SRN
from reblurkit.models.deblur.unet import UNet
from reblurkit.models.reblur_net import ReblurNet
from reblurkit.models.registry import create_model, list_models

__all__ = [
    "DBN",
    "DMPHN",
    "SRN",
    "DeblurGAN",
    "MSResNet",
    "ReblurNet",
    "UNet",
    "create_model",
    "list_models",
]
