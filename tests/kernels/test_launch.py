"""Every launch meets a kernel compiled for its arguments: Triton itself does not look again."""

from __future__ import annotations

import contextlib
import itertools
import os
from typing import ClassVar

import pytest
import torch

from tests.benchmarks.launch import NoDevice
from tests.blur.problems import MODELS

triton = pytest.importorskip("triton", reason="Triton is not installed")

pytestmark = [
    pytest.mark.kernels,
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter replaces the compiler"),
]

NAMES = {torch.float16: "fp16", torch.float32: "fp32", torch.float64: "fp64", torch.int32: "i32", torch.int64: "i64"}


class Recorder(NoDevice):
    """Notes what every launch hands over, beside what its kernel was compiled for."""

    launches: ClassVar = []  # Triton keeps kernels that launch to the first recorder

    def get_current_device(self):
        return -1  # Triton keeps kernels by device, and a real one must not find these

    def launcher_cls(self, source, metadata):
        def launch(x, y, z, stream, function, packed, data, enter, leave, *arguments):
            self.launches.append((source, (x, y, z), arguments))

        return launch


@pytest.fixture
def recorder(monkeypatch):
    """Kernels are compiled for a GPU that is not there, and take tensors of the CPU."""
    from reblurkit.blur.backends.triton import host, launch

    device = Recorder()
    monkeypatch.setattr(triton.runtime.driver, "_active", device)
    monkeypatch.setattr(launch, "_compiled", {})
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    for plans in (host._forward_plan, host._backward_plan):
        plans.cache_clear()
    yield device
    for plans in (host._forward_plan, host._backward_plan):
        plans.cache_clear()


def assert_fits(source, arguments):
    """The types of the arguments are those in the kernel's signature, and constants its constants."""
    assert len(arguments) == len(source.signature)
    for number, ((name, kind), value) in enumerate(zip(source.signature.items(), arguments, strict=True)):
        if isinstance(value, torch.Tensor):
            assert kind == f"*{NAMES[value.dtype]}", name
            if ["tt.divisibility", 16] in source.attrs.get((number,), []):
                assert value.data_ptr() % 16 == 0, name
        elif kind == "constexpr":
            assert source.constants[number,] == value, name
        else:
            assert kind in ("i32", "i64"), name
            assert (number,) not in source.attrs, f"{name} is specialised on its value"


@pytest.mark.parametrize("model", MODELS)
def test_types_sizes_and_needs_have_kernels_of_their_own(model, recorder):
    single, half = torch.float32, torch.float16
    kinds = [(single, single, single), (half, single, half)]
    # Three times: by Triton's own road, by the kernel that was kept, and by the launch that was kept.
    rounds = itertools.product(range(3), [(5, 16), (9, 1)], kinds, [(True, True, True), (True, False, False)])
    for _, size, types, needs in rounds:
        inputs = [
            torch.rand(1, channels, *size).to(kind).requires_grad_(need)
            for channels, kind, need in zip((3, 2, 2), types, needs, strict=True)
        ]
        recorder.launches.clear()
        MODELS[model][0](*inputs, backend="triton").sum().backward()
        names = [source.fn.__name__ for source, _, _ in recorder.launches]
        assert names == ["layout_kernel", "forward_kernel", "backward_kernel"]
        for source, grid, arguments in recorder.launches:
            assert_fits(source, arguments)
            known = dict(zip(source.signature, arguments, strict=True))
            assert (known["width"], known["channels"]) == (size[1], 3)
            if "height" in known:
                assert known["height"] == size[0]
                assert grid[0] == -(-size[0] // 8)  # rows of tiles; one column


def test_every_launch_happens_on_the_device_of_its_tensors(monkeypatch):
    from reblurkit.blur.backends.triton import launch

    current, seen = [0], []

    @contextlib.contextmanager
    def device(index):
        current.append(index)
        yield
        current.pop()

    class Kernel:
        """A kernel that compiles to itself."""

        def __getitem__(self, grid):
            def run(*arguments, **options):
                seen.append((current[-1], grid, arguments))
                return self

            return run

    monkeypatch.setattr(torch.cuda, "current_device", lambda: current[-1])
    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(launch, "_compiled", {})
    for index in (0, 1):
        launcher = launch.Launcher(Kernel(), torch.device("cuda", index), (5, 1, 1), (7,), (True,))
        for number in range(3):
            launcher(number)
    assert seen == [(index, (5, 1, 1), (number, 7, True)) for index in (0, 1) for number in range(3)]
    assert current == [0]
