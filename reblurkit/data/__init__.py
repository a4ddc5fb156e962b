"""Data sets and image files."""

from reblurkit.data.demo import DemoPhotos
from reblurkit.data.images import read_image, write_image
from reblurkit.data.paired import PairedFolder

__all__ = ["DemoPhotos", "PairedFolder", "read_image", "write_image"]
