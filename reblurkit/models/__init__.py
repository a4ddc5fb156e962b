"""Networks: deblurring backbones, the reblurring network, a discriminator, feature extractors."""

from reblurkit.models.deblur.dbn import DBN
from reblurkit.models.deblur.deblurgan import DeblurGAN
from reblurkit.models.deblur.dmphn import DMPHN
from reblurkit.models.deblur.msresnet import MSResNet
from reblurkit.models.deblur.srn import SRN
from reblurkit.models.deblur.unet import UNet
from reblurkit.models.patchgan import PatchGAN
from reblurkit.models.reblur_net import ReblurNet
from reblurkit.models.registry import create_model, list_models
from reblurkit.models.vgg import VGGFeatures

__all__ = [
    "DBN",
    "DMPHN",
    "SRN",
    "DeblurGAN",
    "MSResNet",
    "PatchGAN",
    "ReblurNet",
    "UNet",
    "VGGFeatures",
    "create_model",
    "list_models",
]
