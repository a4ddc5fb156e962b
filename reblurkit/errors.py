"""The errors that reblurkit raises on wrong input.

Every one is a :class:`ReblurkitError` and also the built-in error a caller would expect. The messages say what was
expected, what came, and what to do.
"""

from __future__ import annotations


class ReblurkitError(Exception):
    """Base of all errors of this package; the command line prints its message and exits with status 2."""


class ArgumentError(ReblurkitError, ValueError):
    """An argument has a value outside what is documented."""


class ShapeError(ArgumentError):
    """A tensor has the wrong shape, or two tensors do not fit together."""


class DatasetNotFoundError(ReblurkitError, FileNotFoundError):
    """A folder of images is missing, empty, or laid out in another way than asked for."""


class PairingError(ReblurkitError, ValueError):
    """Blurry and sharp files cannot be put into pairs."""


class ImageFileError(ReblurkitError, ValueError):
    """An image file cannot be decoded."""


class PluginError(ReblurkitError, RuntimeError):
    """A plug-in is wired into a LightningModule or Trainer in a way that cannot work."""


class NonFiniteLossError(ReblurkitError, RuntimeError):
    """The training loss, its gradient or the weights became NaN or infinite."""


class WeightsError(ReblurkitError, ValueError):
    """A file of weights or parameters is missing, cannot be read, or belongs to something else."""


class DownloadError(ReblurkitError, RuntimeError):
    """A file cannot be downloaded or stored."""


class ChecksumError(DownloadError):
    """A file has another content than the one expected."""


class TruncationError(DownloadError):
    """A download ended before the whole file had come."""


class ReportError(ReblurkitError, ValueError):
    """A run folder cannot be read, or a report cannot be written."""


class BackendError(ReblurkitError, RuntimeError):
    """A backend or an extra is not installed, or a backend cannot do what is asked of it on the tensors' device."""
