"""Random blur problems, and how far two results are apart."""

from __future__ import annotations

import torch

from reblurkit.blur import flow_kernel_blur, flow_line_blur
from reblurkit.blur.reference import dense_flow_kernel_blur, dense_flow_line_blur

# Each public model with its definition.
MODELS = {
    "table": (flow_kernel_blur, dense_flow_kernel_blur),
    "line": (flow_line_blur, dense_flow_line_blur),
}

# Batch, channels, height, width, largest flow: odd sizes, one pixel, one row, one column, flow beyond the table.
SHAPES = [(2, 3, 18, 21, 18.0), (1, 1, 1, 1, 3.0), (1, 2, 1, 13, 5.0), (3, 1, 11, 1, 9.0), (1, 5, 9, 14, 24.0)]


def problem(batch, channels, height, width, largest, *, dtype=torch.float64, whole=False):
    """Image, two flows and an upstream gradient; the first pixel has zero flow."""
    image = torch.rand(batch, channels, height, width, dtype=dtype)
    flows = [(2 * torch.rand(batch, 2, height, width, dtype=dtype) - 1) * largest for _ in range(2)]
    if whole:
        flows = [flow.round() for flow in flows]
    flows[0][..., 0, 0] = 0
    grad = torch.randn(batch, channels, height, width, dtype=dtype)
    return [image.requires_grad_(), *(flow.requires_grad_() for flow in flows)], grad


def with_gradients(model, inputs, grad, **keywords):
    """Output and the gradients of image and flows, for the upstream gradient."""
    output = model(*inputs, **keywords)
    return [output.detach(), *torch.autograd.grad(output, inputs, grad.to(output.dtype))]


def assert_same(results, expected, tolerance):
    """Equal to a tolerance relative to the largest expected value (gradients: or to the image's range, 1)."""
    names = ("output", "image gradient", "gradient of flow_next", "gradient of flow_prev")
    for name, result, wanted in zip(names, results, expected, strict=True):
        assert result.shape == wanted.shape, name
        error = (result.double() - wanted.double()).abs().max().item()
        assert error <= tolerance * max(1.0, wanted.abs().max().item()), f"{name}: {error}"


def poison_fresh_buffers(monkeypatch):
    """Uninitialised memory holds NaN from here on, so that whatever of it comes through shows."""

    def poisoned(function):
        def fresh(*arguments, **keywords):
            result = function(*arguments, **keywords)
            return result.fill_(torch.nan) if result.is_floating_point() else result

        return fresh

    monkeypatch.setattr(torch, "empty", poisoned(torch.empty))
    monkeypatch.setattr(torch, "empty_like", poisoned(torch.empty_like))
    monkeypatch.setattr(torch.Tensor, "new_empty", poisoned(torch.Tensor.new_empty))
