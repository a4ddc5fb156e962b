"""What every deblurring backbone promises; what each computes is tested in ``tests/models/deblur``."""

from __future__ import annotations

import pytest
import torch

from reblurkit.core.calls import finest_scale
from reblurkit.errors import ArgumentError, ShapeError
from reblurkit.models import create_model

COUNTS = {
    "srn": 6_881_251,
    "dhn": 7_232_524,
    "dmphn-1-2-4": 3 * (868_288 + 939_843),
    "dmphn-1-2-4-8": 4 * (868_288 + 939_843),
    "msresnet": 11_721_321,
    "dbn": 15_305_291,
    "deblurgan": 11_378_179,
}
SMALL = {
    "srn": {"widths": (4, 6, 8)},
    "dhn": {"widths": (4, 6, 8)},
    "dmphn-1-2-4": {"widths": (4, 6, 8)},
    "dmphn-1-2-4-8": {"widths": (4, 6, 8)},
    "msresnet": {"blocks": 2, "width": 4},
    "dbn": {"width": 4},
    "deblurgan": {"blocks": 2, "width": 4},
}
MULTIPLES = {
    "srn": 16,
    "dhn": 4,
    "dmphn-1-2-4": 8,
    "dmphn-1-2-4-8": 16,
    "msresnet": 4,
    "dbn": 8,
    "deblurgan": 4,
}
SCALES = {"srn": 3, "msresnet": 3}
NAMES = list(COUNTS)


def small(name):
    return create_model(name, **SMALL[name]).eval()


def images(name, batch=1, height=16, width=32, **options):
    return torch.rand(batch, *([5] if name == "dbn" else []), 3, height, width, **options)


@pytest.mark.parametrize("name", NAMES)
def test_parameter_count_of_the_authors_network(name):
    with torch.device("meta"):
        network = create_model(name)
    assert sum(parameter.numel() for parameter in network.parameters()) == COUNTS[name]


@pytest.mark.parametrize("name", NAMES)
def test_output_is_an_image_or_a_list_from_coarse_to_fine(name):
    network = small(name)
    height, width = 2 * MULTIPLES[name], 3 * MULTIPLES[name]
    output = network(images(name, 2, height, width))
    if name in SCALES:
        sizes = [(height // 2**k, width // 2**k) for k in reversed(range(SCALES[name]))]
        assert [tuple(image.shape) for image in output] == [(2, 3, *size) for size in sizes]
    else:
        assert output.shape == (2, 3, height, width)


@pytest.mark.parametrize("name", NAMES)
def test_sizes_that_do_not_divide_are_refused_with_advice(name):
    network, multiple = small(name), MULTIPLES[name]
    assert network.multiple == multiple
    for height, width in [(2 * multiple + 1, 2 * multiple), (2 * multiple, 3 * multiple - 2)]:
        with pytest.raises(ShapeError, match=rf"divide by {multiple}, .* {height} x {width}; .*FullSize"):
            network(images(name, height=height, width=width))


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_parameter(name):
    network = small(name).double()
    # One dot of a random image: the mean would be blind to what a normalisation takes out.
    finest = finest_scale(network(images(name, 2, dtype=torch.float64)))
    (finest * torch.randn_like(finest)).sum().backward()
    constants = {entry for entry, _ in network.named_parameters() if name == "deblurgan" and entry.endswith("bias")}
    constants.discard("model.19.bias")  # an instance normalisation takes every bias out but the last layer's
    for entry, parameter in network.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > (0 if entry not in constants else -1), entry


@pytest.mark.parametrize("name", NAMES)
def test_images_of_a_batch_do_not_see_each_other(name):
    network, batch = small(name).double(), images(name, 2, dtype=torch.float64)
    together = finest_scale(network(batch))
    for index in range(2):
        alone = finest_scale(network(batch[index : index + 1]))
        torch.testing.assert_close(together[index : index + 1], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_is_near_float32(name):
    network, batch = small(name), images(name)
    expected = finest_scale(network(batch))
    output = finest_scale(network.bfloat16()(batch.bfloat16()))
    assert output.dtype == torch.bfloat16
    assert (output - expected).abs().max() < 0.1 * (1 + expected.abs().max())


@pytest.mark.parametrize("name", NAMES)
def test_compiles_without_a_break(name):
    network, batch = small(name), images(name)
    torch._dynamo.reset()
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(batch), network(batch))


@pytest.mark.parametrize("name", NAMES)
def test_exports(name):
    network, batch = small(name), images(name)
    exported = torch.export.export(network, (batch,)).module()
    torch.testing.assert_close(exported(batch), network(batch))


@pytest.mark.parametrize("name", NAMES)
def test_training_changes_the_output_towards_the_target(name):
    network, batch, target = small(name).train(), images(name, 2), torch.rand(2, 3, 16, 32)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    losses = []
    for _ in range(8):
        loss = (finest_scale(network(batch)) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[4:]) < losses[0]


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("srn", {"widths": (4, 8)}),
        ("srn", {"scales": 0}),
        ("dmphn-1-2-4", {"levels": (1, 3)}),
        ("dmphn-1-2-4", {"levels": (2, 4)}),
        ("dhn", {"widths": (4, 8)}),
        ("msresnet", {"blocks": -1}),
        ("dbn", {"frames": 4}),
        ("deblurgan", {"dropout": 1.0}),
    ],
)
def test_wrong_arguments(name, wrong):
    with pytest.raises(ArgumentError, match="must be"):
        create_model(name, **wrong)


@pytest.mark.parametrize("name", ["srn", "dhn", "msresnet", "deblurgan"])
def test_other_tensors_than_rgb_images_are_refused(name):
    with pytest.raises(ShapeError, match=r"expected a batch of images \(B, 3, H, W\)"):
        small(name)(torch.rand(1, 1, 16, 16))
