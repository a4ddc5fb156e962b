"""Test-time adaptation: Algorithm 1 of *Clean Images are Hard to Reblur* (Nah et al., 2021), and to a photo's blur."""

from reblurkit.adaptation.batch import Adapted, adapt
from reblurkit.adaptation.histogram import match_histogram
from reblurkit.adaptation.options import AdaptOptions
from reblurkit.adaptation.own_blur import AdaptedToBlur, AdaptToBlurOptions, adapt_to_blur

__all__ = [
    "AdaptOptions",
    "AdaptToBlurOptions",
    "Adapted",
    "AdaptedToBlur",
    "adapt",
    "adapt_to_blur",
    "match_histogram",
]
