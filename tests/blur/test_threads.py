"""Several processes on one machine do not choke each other: Numba takes no more threads than torch."""

from __future__ import annotations

import os
import unittest.mock

import numba
import pytest
import torch

from reblurkit import blur
from reblurkit.blur.backends.numba import host


class _Blurred(torch.utils.data.Dataset):
    """Says how many threads Numba had for the blur of each item."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        seen = []
        kernel = host._forward.parallel

        def counted(*arrays):
            seen.append(numba.get_num_threads())
            kernel(*arrays)

        image, flow = torch.rand(1, 3, 5, 6), torch.rand(1, 2, 5, 6)
        with unittest.mock.patch.object(host._forward, "parallel", counted):
            blur.flow_line_blur(image, flow, flow, backend="numba")
        return seen[0]


def test_numba_takes_no_more_threads_than_torch():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert _Blurred()[0] == 1
        assert torch.get_num_threads() == 1, "and leaves torch its own"
    finally:
        torch.set_num_threads(before)


def test_workers_of_a_loader_blur_with_one_thread_each():
    loader = torch.utils.data.DataLoader(_Blurred(), num_workers=2, multiprocessing_context="spawn")
    assert [int(threads) for threads in loader] == [1, 1]


class _Gradients(torch.utils.data.Dataset):
    """A blurred image and all its gradients, in both models."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        image, following, preceding = (
            torch.rand(1, channels, 33, 20, generator=torch.Generator().manual_seed(channels)).requires_grad_()
            for channels in (3, 2, 2)
        )
        options = {} if index else {"max_flow": 3}
        function = blur.flow_line_blur if index else blur.flow_kernel_blur
        blurred = function(image, following, preceding[:, [1, 0]], backend="numba", **options)
        return blurred.detach(), *torch.autograd.grad(blurred.square().sum(), (image, following, preceding))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_forked_workers_give_the_same_after_their_parent_has_used_threads():
    here = [_Gradients()[index] for index in range(2)]
    loader = torch.utils.data.DataLoader(_Gradients(), batch_size=None, num_workers=1, multiprocessing_context="fork")
    for expected, found in zip(here, loader, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
