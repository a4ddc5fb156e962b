"""Test-time adaptation, Algorithm 1 of Nah et al., *Clean Images are Hard to Reblur* (2021), in plain PyTorch."""

from reblurkit.adaptation.batch import Adapted, AdaptOptions, adapt
from reblurkit.adaptation.histogram import match_histogram

__all__ = ["AdaptOptions", "Adapted", "adapt", "match_histogram"]
