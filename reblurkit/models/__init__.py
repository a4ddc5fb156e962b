"""Networks: deblurring backbones and the reblurring network."""

from reblurkit.models.checkpoints import load_weights
from reblurkit.models.deblur.unet import UNet
from reblurkit.models.reblur_net import ReblurNet
from reblurkit.models.registry import create_model, list_models

__all__ = ["ReblurNet", "UNet", "create_model", "list_models", "load_weights"]
