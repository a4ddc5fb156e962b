"""Arguments that are none: one clear error everywhere, before any memory is taken."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
import torch

from reblurkit.blur import (
    FlowKernelBlur,
    ShakeBlur,
    average_frames,
    exposure_from,
    flow_kernel_blur,
    flow_kernel_mask,
    flow_line_blur,
    flow_warp_blur,
    kernel_table,
)
from reblurkit.blur.reference import dense_flow_kernel_blur, dense_flow_line_blur
from reblurkit.errors import ArgumentError, ShapeError

IMAGE, FLOW = torch.rand(1, 3, 6, 5), torch.rand(1, 2, 6, 5)
NO_NUMBERS = [math.nan, math.inf, -math.inf, "9", True, [1], torch.tensor(1.0, requires_grad=True), 0, -1, 10**400]

TABLES = {
    "flow_kernel_blur": lambda m: flow_kernel_blur(IMAGE, FLOW, FLOW, max_flow=m, backend="torch"),
    "FlowKernelBlur": lambda m: FlowKernelBlur(max_flow=m, backend="torch")(IMAGE, FLOW, FLOW),
    "dense_flow_kernel_blur": lambda m: dense_flow_kernel_blur(IMAGE, FLOW, FLOW, max_flow=m),
    "kernel_table": lambda m: kernel_table(m),
}
WHOLE = {f"max_flow: {name}": call for name, call in TABLES.items()} | {
    "max_flow: flow_kernel_mask": lambda m: flow_kernel_mask(FLOW, FLOW, max_flow=m),
    "samples": lambda n: flow_warp_blur(IMAGE, FLOW, FLOW, samples=n),
    "size": lambda n: ShakeBlur(n),
    "window": lambda n: exposure_from(window=n, stride=9),
    "stride": lambda n: exposure_from(window=9, stride=n),
}
POSITIVE = {
    "exposure: table": lambda x: flow_kernel_blur(IMAGE, FLOW, FLOW, exposure=x),
    "exposure: line": lambda x: flow_line_blur(IMAGE, FLOW, FLOW, exposure=x),
    "exposure: warp": lambda x: flow_warp_blur(IMAGE, FLOW, FLOW, exposure=x),
    "exposure: mask": lambda x: flow_kernel_mask(FLOW, FLOW, exposure=x),
    "exposure: dense table": lambda x: dense_flow_kernel_blur(IMAGE, FLOW, FLOW, exposure=x),
    "exposure: dense line": lambda x: dense_flow_line_blur(IMAGE, FLOW, FLOW, exposure=x),
    "gamma": lambda x: average_frames(IMAGE[None], gamma=x),
    "shutter": lambda x: exposure_from(shutter=x, fps=24),
    "fps": lambda x: exposure_from(shutter=0.01, fps=x),
}


def refused(call, value, message, error=ArgumentError):
    with pytest.raises(error, match=message) as caught:
        call(value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_number_is_an_int_of_at_least_one(name):
    for value in [*NO_NUMBERS, 2.0, 2.5]:
        refused(WHOLE[name], value, f"`{name.split(':')[0]}` must be a whole number")
    WHOLE[name](3)


@pytest.mark.parametrize("name", POSITIVE)
def test_a_positive_number_is_finite_and_no_tensor(name):
    for value in NO_NUMBERS:
        refused(POSITIVE[name], value, f"`{name.split(':')[0]}` must be a finite number")
    POSITIVE[name](1)
    POSITIVE[name](0.5)


@pytest.mark.parametrize("name", [*TABLES, *(name for name in POSITIVE if "exposure" in name)])
def test_none_is_no_number(name):
    refused((TABLES | POSITIVE)[name], None, "must be a .* number .*but is None")


def test_an_exposure_to_be_learned_belongs_to_the_flows():
    refused(POSITIVE["exposure: table"], torch.nn.Parameter(torch.ones(())), "a Parameter; .* may scale the flows")
    scale, weight = torch.tensor(0.5, requires_grad=True), torch.rand_like(IMAGE)
    (weight * flow_line_blur(IMAGE, scale * FLOW, scale * FLOW)).sum().backward()
    assert scale.grad != 0


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("max_flow", [65, 128, 2**31 - 1])
def test_a_huge_table_is_refused_before_memory_is_taken(name, max_flow):
    tracemalloc.start()  # NumPy's memory counts
    try:
        refused(
            TABLES[name], max_flow, r"at most 64 pixels, but is \d+: .* [\d,.]+ GB of memory; flow_line_blur has no"
        )
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()
    flow_kernel_mask(FLOW, FLOW, max_flow=max_flow)  # builds no table


def test_the_memory_in_the_message_is_the_memory_taken():
    tracemalloc.start()
    try:
        kernel_table(12)
        assert tracemalloc.get_traced_memory()[1] > 8 * 25**4
    finally:
        tracemalloc.stop()
    refused(TABLES["kernel_table"], 128, "34.9 GB")  # 8 * 257^4
    refused(TABLES["flow_kernel_blur"], 128, "4.9 GB")


@pytest.mark.parametrize("value", [None, [[1.0]], np.zeros((1, 3, 6, 5), np.float32), "image"], ids=lambda x: type(x))
def test_only_tensors_are_images_and_flows(value):
    calls = {
        "image": [
            lambda x: flow_kernel_blur(x, FLOW, FLOW),
            lambda x: flow_line_blur(x, FLOW, FLOW),
            lambda x: flow_warp_blur(x, FLOW, FLOW),
            lambda x: dense_flow_kernel_blur(x, FLOW, FLOW),
            ShakeBlur(3),
        ],
        "flow_next": [
            lambda x: flow_kernel_blur(IMAGE, x, FLOW),
            lambda x: flow_warp_blur(IMAGE, x, FLOW),
            lambda x: flow_kernel_mask(x, FLOW),
        ],
        "flow_prev": [
            lambda x: flow_line_blur(IMAGE, FLOW, x),
            lambda x: dense_flow_line_blur(IMAGE, FLOW, x),
            lambda x: flow_kernel_mask(FLOW, x),
        ],
        "frames": [average_frames],
    }
    for name, functions in calls.items():
        for call in functions:
            refused(call, value, f"`{name}` must be a tensor .*, but is")


def test_exposures_are_refused_that_come_out_as_nothing_or_without_end():
    for number in (1e-200, 1e200):
        with pytest.raises(ArgumentError, match="`exposure` must be"):
            exposure_from(shutter=number, fps=number)
    with pytest.raises(ArgumentError, match="`window` must be a whole number of frames"):
        exposure_from(window=0.5, stride=1)


def test_the_message_of_a_mask_names_the_flow_alone():
    refused(
        lambda x: flow_kernel_mask(x, FLOW), torch.rand(1, 3, 6, 5), r"`flow_next` must be \(B, 2, H, W\)", ShapeError
    )
    refused(lambda x: flow_kernel_mask(x, FLOW), torch.rand(2, 6, 5), r"but is \(2, 6, 5\)", ShapeError)
    refused(lambda x: flow_kernel_mask(FLOW, x), torch.rand(1, 2, 6, 6), "as `flow_next` is", ShapeError)
    refused(lambda x: flow_kernel_mask(x, FLOW), torch.zeros(1, 2, 6, 5, dtype=torch.int32), r"call \.float\(\)")


def test_nothing_is_blurred_where_there_is_no_pixel():
    for shape in [(0, 3, 6, 5), (1, 0, 6, 5), (1, 3, 0, 5), (1, 3, 6, 0)]:
        flow = torch.rand(shape[0], 2, *shape[2:])
        for call in (
            lambda shape, flow=flow: flow_kernel_blur(torch.rand(shape), flow, flow),
            lambda shape: average_frames(torch.rand(shape).unsqueeze(1)),
            lambda shape: ShakeBlur(3, linear=False)(torch.rand(shape)),
        ):
            refused(call, shape, "at least one pixel", ShapeError)
        if shape[1]:
            refused(lambda flow: flow_kernel_mask(flow, flow), flow, "at least one pixel", ShapeError)
    refused(average_frames, torch.rand(1, 0, 3, 6, 5), "at least one pixel", ShapeError)


def test_other_arguments_of_the_wrong_type():
    refused(lambda x: ShakeBlur(3, x), "0.5", "`strength` must be")
    refused(lambda x: ShakeBlur(3, x), math.nan, "`strength` must be")
    refused(lambda x: ShakeBlur(3, x), True, "`strength` must be")
    for seed in (1.0, "1", True, 2**64):
        refused(lambda x: ShakeBlur(3, seed=x), seed, "`seed` must be")
    refused(lambda x: kernel_table(2, x), [], "`rasterisation` must be one of")
    refused(lambda x: flow_line_blur(IMAGE, FLOW, FLOW, backend=x), None, "`backend` must be one of")
