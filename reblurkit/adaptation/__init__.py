"""Test-time adaptation, Algorithm 1 of Nah et al., *Clean Images are Hard to Reblur* (2021), in plain PyTorch."""

from reblurkit.adaptation.batch import Adapted, adapt
from reblurkit.adaptation.histogram import match_histogram
from reblurkit.adaptation.options import AdaptOptions

__all__ = ["AdaptOptions", "Adapted", "adapt", "match_histogram"]
