"""reblurkit: deblurring by reblurring, as plug-ins for PyTorch Lightning.

Entry points and submodules are imported on first use, so that ``import reblurkit`` itself costs next to nothing.

Example:
    >>> import reblurkit
    >>> "ReblurLossMixin" in dir(reblurkit)
    True
"""

from reblurkit.core.lazy import attach_stub

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
