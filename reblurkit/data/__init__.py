"""Data sets and image files."""

from reblurkit.data.demo import DemoPhotos
from reblurkit.data.images import read_image, write_image
from reblurkit.data.paired import PairedFolder
from reblurkit.data.photos import BlurryFolder, PhotoFolder
from reblurkit.data.unpaired import UnpairedFolder
from reblurkit.data.video import VideoFolder

__all__ = [
    "BlurryFolder",
    "DemoPhotos",
    "PairedFolder",
    "PhotoFolder",
    "UnpairedFolder",
    "VideoFolder",
    "read_image",
    "write_image",
]
