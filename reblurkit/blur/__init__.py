"""From motion to blur: differentiable models of how blurry images come about."""

from reblurkit.blur.shake import ShakeBlur

__all__ = ["ShakeBlur"]
