"""Losses of the papers, in pure PyTorch. All are means over all elements."""

from reblurkit.losses.adversarial import AdversarialLoss, gradient_penalty
from reblurkit.losses.features import LayerFeatures
from reblurkit.losses.flow_reblur import flow_reblur_loss
from reblurkit.losses.perceptual import MultiScalePerceptualLoss, VGGLoss
from reblurkit.losses.reblur import (
    ReblurLoss,
    blur_reconstruction_loss,
    reblur_loss,
    self_reblur_loss,
    sharpness_preservation_loss,
)
from reblurkit.losses.reconstruction import CharbonnierLoss, FrequencyLoss, LogMSELoss, MultiScaleLoss

__all__ = [
    "AdversarialLoss",
    "CharbonnierLoss",
    "FrequencyLoss",
    "LayerFeatures",
    "LogMSELoss",
    "MultiScaleLoss",
    "MultiScalePerceptualLoss",
    "ReblurLoss",
    "VGGLoss",
    "blur_reconstruction_loss",
    "flow_reblur_loss",
    "gradient_penalty",
    "reblur_loss",
    "self_reblur_loss",
    "sharpness_preservation_loss",
]
