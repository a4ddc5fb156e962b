"""Optical flow networks, all called as ``(source, target) -> flow``."""
