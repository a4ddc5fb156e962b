"""Deblurring networks."""
