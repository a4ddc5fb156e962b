"""Nothing but additions of rows of four numbers, to measure how fast the device does them."""

import torch
import triton
import triton.language as tl


@triton.jit
def _add_rows_kernel(target, index, BLOCK: tl.constexpr):  # noqa: N803
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    place = tl.load(index + row)[:, None] * 4 + tl.arange(0, 4)[None, :]
    tl.atomic_add(target + place, tl.full([BLOCK, 4], 1.0, tl.float32), sem="relaxed")


def add_rows(target: torch.Tensor, index: torch.Tensor) -> None:
    """Add 1 to the rows ``index`` of a ``(rows, 4)`` target; the number of rows is a multiple of 128."""
    _add_rows_kernel[(len(index) // 128,)](target, index, BLOCK=128, num_warps=4)
