"""MSResNet against the authors' recipe: scikit-image's pyramid, RGB in [0, 255], residual networks."""

from __future__ import annotations

import torch
from skimage.transform import pyramid_gaussian
from torch.nn import functional as F

from reblurkit.models import MSResNet


def conv(state, name, image):
    return F.conv2d(image, state[f"{name}.weight"], state[f"{name}.bias"], padding=2)


def body(state, scale, blocks, image):
    name = f"body_models.{scale}.body"
    features = conv(state, f"{name}.0", image)
    for block in range(1, blocks + 1):
        features = features + conv(
            state, f"{name}.{block}.body.2", conv(state, f"{name}.{block}.body.0", features).relu()
        )
    return conv(state, f"{name}.{blocks + 1}", features)


def authors_network(state, blocks, scales, blurry):
    """One image; coarse to fine."""
    pyramid = pyramid_gaussian(255 * blurry[0].permute(1, 2, 0).numpy(), scales - 1, channel_axis=-1)
    levels = [torch.from_numpy(level.copy()).permute(2, 0, 1)[None] - 127.5 for level in pyramid]
    outputs, previous = [], None
    for scale in range(scales - 1, -1, -1):
        image = levels[scale]
        if previous is not None:
            image = torch.cat(
                [image, F.pixel_shuffle(conv(state, f"conv_end_models.{scale + 1}.uppath.0", previous), 2)], 1
            )
        previous = body(state, scale, blocks, image)
        outputs.append((previous + 127.5) / 255)
    return outputs


def test_computes_the_authors_network():
    network = MSResNet(blocks=2, width=4).double()
    blurry = torch.rand(1, 3, 20, 28, dtype=torch.float64)
    expected = authors_network(network.state_dict(), 2, 3, blurry)
    # the kernel of the pyramid is a float32 buffer
    torch.testing.assert_close(network(blurry), expected, rtol=0, atol=1e-6)


def test_keys_are_those_of_the_authors_files():
    network = MSResNet(blocks=3, width=4)
    layers = {f"conv_end_models.{scale}.uppath.0" for scale in (1, 2)}
    for scale in range(3):
        layers |= {f"body_models.{scale}.body.{place}" for place in (0, 4)}
        layers |= {f"body_models.{scale}.body.{block}.body.{place}" for block in (1, 2, 3) for place in (0, 2)}
    assert set(network.state_dict()) == {f"{layer}.{entry}" for layer in layers for entry in ("weight", "bias")}
    assert network.body_models[2].body[0].in_channels == 3
    assert network.body_models[0].body[0].in_channels == 6


def test_range_of_the_weights():
    torch.manual_seed(0)
    network, image = MSResNet(blocks=1, width=4), torch.rand(1, 3, 8, 8)
    torch.manual_seed(0)
    unit = MSResNet(blocks=1, width=4, rgb_range=1.0)
    for entry, parameter in unit.named_parameters():  # biases are in units of the range
        if entry.endswith("bias"):
            parameter.data /= 255
    torch.testing.assert_close(unit(image), network(image), rtol=1e-5, atol=1e-5)


def test_one_scale_is_the_residual_network_alone():
    (output,) = MSResNet(blocks=1, width=4, scales=1)(torch.rand(1, 3, 7, 5))
    assert output.shape == (1, 3, 7, 5)
