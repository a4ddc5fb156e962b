"""Several processes on one machine do not choke each other: Numba takes no more threads than torch."""

from __future__ import annotations

import unittest.mock

import numba
import torch

from reblurkit import blur
from reblurkit.blur.backends.numba import host


class _Blurred(torch.utils.data.Dataset):
    """Says how many threads Numba had for the blur of each item."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        seen = []
        kernel = host._forward

        def counted(*arrays):
            seen.append(numba.get_num_threads())
            kernel(*arrays)

        image, flow = torch.rand(1, 3, 5, 6), torch.rand(1, 2, 5, 6)
        with unittest.mock.patch.object(host, "_forward", counted):
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
    # Spawned: GNU's OpenMP, once started in this process, ends forked ones.
    loader = torch.utils.data.DataLoader(_Blurred(), num_workers=2, multiprocessing_context="spawn")
    assert [int(threads) for threads in loader] == [1, 1]
