"""Every Triton kernel compiles for real GPUs, without one, and stays within its budget of registers."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

triton = pytest.importorskip("triton", reason="Triton is not installed")

pytestmark = [
    pytest.mark.kernels,
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter replaces the compiler"),
]


def backward(max_flow, image=True, flow=True, split=False, fixed=False):
    return "backward_kernel", {
        "MAX_FLOW": max_flow,
        "NEED_IMAGE": image,
        "NEED_FLOW": flow,
        "SPLIT": split,
        "FIXED": fixed,
    }


# Image and flow gradient in one loop for the table, in programs of their own for the line; FIXED is the deterministic
# sum.
VARIANTS = {
    "layout": ("layout_kernel", {}),
    "forward, table": ("forward_kernel", {"MAX_FLOW": 16}),
    "forward, line": ("forward_kernel", {"MAX_FLOW": 0}),
    "both, table": backward(16),
    "image, table": backward(16, flow=False),
    "flow, table": backward(16, image=False),
    "both, line": backward(0, split=True),
    "image, line": backward(0, flow=False),
    "flow, line": backward(0, image=False),
    "both, table, fixed": backward(16, split=True, fixed=True),
    "both, line, fixed": backward(0, split=True, fixed=True),
}
POINTERS = [
    "image",
    "rows",
    "flow_next",
    "flow_prev",
    "blurred",
    "coefficients",
    "grad",
    "d_image",
    "d_next",
    "d_prev",
]
# What the host leaves out: None is a constant for Triton.
UNUSED = {"image": ("rows", "d_next", "d_prev"), "flow": ("d_image",)}


def compiled(variant, capability, wide=False):
    """The kernel, built as a launch would build it."""
    import triton.language as tl
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from reblurkit.blur.backends.triton import kernels, pixel

    name, constants = VARIANTS[variant]
    kernel = getattr(kernels, name)
    if name != "layout_kernel":
        constants = constants | {"WIDE": tl.int64 if wide else tl.int32}
    pointers = dict.fromkeys(POINTERS, "*fp32") | {"cells": "*i32", "unit": "*fp64"}
    names = kernel.arg_names
    absent = UNUSED.get(variant.split(",")[0], ())
    if "line" in variant:
        absent = (*absent, "cells")
    if constants.get("FIXED"):
        pointers["d_image"] = "*i64"
    else:
        absent = (*absent, "unit")
    constants = constants | {name: None for name in absent if name in names}
    numbers = {param.name: param.annotation_type for param in kernel.params if param.name in kernels.SIZES}
    types = numbers | pointers
    source = ASTSource(
        fn=kernel,
        signature={name: "constexpr" if name in constants else types[name] for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={
            (names.index(name),): [["tt.divisibility", 16]]
            for name in pointers
            if name in names and name not in constants and name not in kernels.OTHERS
        },
    )
    options = {"num_warps": pixel.WARPS, "enable_fp_fusion": True}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def resources(kernel, folder):
    """Registers and bytes of spilled memory, from the machine code."""
    cubin = folder / "kernel.cubin"
    cubin.write_bytes(kernel.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    listing = subprocess.run([tool, "--dump-resource-usage", cubin], capture_output=True, text=True, check=True).stdout
    registers, stack, local = re.search(r"REG:(\d+) STACK:(\d+).*?LOCAL:(\d+)", listing).groups()
    return int(registers), int(stack) + int(local)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("capability", [80, 90, 100])
def test_kernels_keep_to_registers(variant, capability, tmp_path):
    kernel = compiled(variant, capability)
    registers, spilled = resources(kernel, tmp_path)
    # Triton 3.6 spills one register of the deterministic sum.
    assert spilled <= (8 if "fixed" in variant else 0)
    # 48 registers leave room for 40 of a multiprocessor's 64 warps, 56 for 36; Triton 3.6 takes 64 on sm_100, for 32.
    if "fixed" not in variant and capability >= 90:
        assert registers <= (48 if variant.startswith("forward") else 56 if capability == 90 else 64)
    # Devices before sm_90 add four numbers with four instructions; half the threads of a multiprocessor still fit.
    assert registers <= 72
    code = kernel.asm["ptx"]
    if not variant.startswith(("image, line", "layout")):  # which read neither coefficients nor rows
        assert "ld.global.v4" in code, "a row of four is one load"
    if variant == "layout":
        assert "st.global.v4" in code, "and one store"
    if variant.startswith(("image", "both")) and "fixed" not in variant and capability >= 90:
        assert re.search(r"(red|atom)\S*\.add\S*\.v4\.f32|(red|atom)\S*\.v4\.f32\.add", code), "and one atomic"


@pytest.mark.parametrize("variant", VARIANTS)
def test_kernels_compile_for_huge_images(variant):
    compiled(variant, 90, wide=True)
