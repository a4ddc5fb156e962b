"""Pictures for people to look at: images side by side, motion, what a network looks at."""

from reblurkit.pictures.grid import comparison_grid
from reblurkit.pictures.motion import motion_figure
from reblurkit.pictures.remaining_blur import remaining_blur_figure
from reblurkit.pictures.saliency import guided_saliency, saliency_figure

__all__ = ["comparison_grid", "guided_saliency", "motion_figure", "remaining_blur_figure", "saliency_figure"]
