"""Everything that plugs into Lightning. Nothing outside this package and the command line imports it."""

from reblurkit.core.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
