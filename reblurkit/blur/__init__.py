"""Physics: from motion to blur, differentiable, in pure torch."""

from reblurkit.blur.averaging import average_frames
from reblurkit.blur.consistency import Consistent, make_consistent
from reblurkit.blur.defocus import DefocusBlur
from reblurkit.blur.exposure import exposure_from
from reblurkit.blur.kernel_blur import FlowKernelBlur, flow_kernel_blur
from reblurkit.blur.kernel_estimate import estimate_blur_kernel, kernel_similarity
from reblurkit.blur.line_blur import FlowLineBlur, flow_line_blur
from reblurkit.blur.mask import flow_kernel_mask
from reblurkit.blur.motion import MotionBlur
from reblurkit.blur.moving_object import MovingObjectBlur
from reblurkit.blur.noise import CameraNoise
from reblurkit.blur.photo_blur import PhotoBlur
from reblurkit.blur.random_blur import DrawnBlur, RandomBlur
from reblurkit.blur.realistic import RealisticBlur
from reblurkit.blur.shake import ShakeBlur
from reblurkit.blur.shuffled import ShuffledDegradation
from reblurkit.blur.table import kernel_table
from reblurkit.blur.transfer import BlurTransfer
from reblurkit.blur.warp_blur import FlowWarpBlur, flow_warp_blur

__all__ = [
    "BlurTransfer",
    "CameraNoise",
    "Consistent",
    "DefocusBlur",
    "DrawnBlur",
    "FlowKernelBlur",
    "FlowLineBlur",
    "FlowWarpBlur",
    "MotionBlur",
    "MovingObjectBlur",
    "PhotoBlur",
    "RandomBlur",
    "RealisticBlur",
    "ShakeBlur",
    "ShuffledDegradation",
    "average_frames",
    "estimate_blur_kernel",
    "exposure_from",
    "flow_kernel_blur",
    "flow_kernel_mask",
    "flow_line_blur",
    "flow_warp_blur",
    "kernel_similarity",
    "kernel_table",
    "make_consistent",
]
