"""Networks: deblurring backbones, the reblurring network, a discriminator, feature extractors."""

from reblurkit.models.deblur.unet import UNet
from reblurkit.models.patchgan import PatchGAN
from reblurkit.models.reblur_net import ReblurNet
from reblurkit.models.registry import create_model, list_models
from reblurkit.models.vgg import VGGFeatures

__all__ = ["PatchGAN", "ReblurNet", "UNet", "VGGFeatures", "create_model", "list_models"]
