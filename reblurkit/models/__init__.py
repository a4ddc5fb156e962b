"""Networks by name, and the files of weights that they load.

Networks are imported on first use: some need torchvision or timm, which take longer to import than torch.
"""

from reblurkit.core.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
