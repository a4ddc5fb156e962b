"""NAFNet, MIMO-UNet, Restormer, DeblurGAN-v2 and KernelWizard: layouts, and what every network must be able to do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from reblurkit.core.calls import finest_scale
from reblurkit.errors import ArgumentError, ShapeError
from reblurkit.models import create_model
from reblurkit.models.deblur.deblurgan_v2 import DeblurGANv2
from reblurkit.models.deblur.mimo_unet import MIMOUNet
from reblurkit.models.deblur.nafnet import NAFNet
from reblurkit.models.deblur.restormer import Restormer
from reblurkit.models.kernel_wizard import KernelWizard

NAFNET = {"width": 4, "encoder_blocks": (1, 1), "middle_blocks": 1, "decoder_blocks": (1, 1)}
RESTORMER = {"width": 8, "blocks": (1, 1, 1, 1), "refinement_blocks": 1, "heads": (1, 2, 2, 4)}
WIZARD = {"width": 8, "code_width": 16, "front_blocks": 1, "back_blocks": 1}
SMALL = {
    "nafnet": ("nafnet-width32", NAFNET, (16, 24)),
    "nafnet-local": ("nafnet-width32", {**NAFNET, "window": 8}, (16, 24)),
    "mimo-unet": ("mimo-unet", {"blocks": 1, "width": 4}, (16, 24)),
    "mimo-unet-plus": ("mimo-unet-plus", {"blocks": 1, "width": 4}, (16, 24)),
    "restormer": ("restormer", RESTORMER, (16, 24)),
    "deblurgan-v2-mobilenet": ("deblurgan-v2-mobilenet", {"width": 8}, (64, 96)),
    "deblurgan-v2-inception": ("deblurgan-v2-inception", {"width": 8}, (128, 160)),
    "kernel-wizard": ("kernel-wizard", WIZARD, (256, 256)),
}
every_network = pytest.mark.parametrize("name", SMALL)


def small(name):
    model, options, _ = SMALL[name]
    return create_model(model, **options).eval()


def images(name, batch=1, **kwargs):
    return 0.3 + 0.4 * torch.rand(batch, 3, *SMALL[name][2], **kwargs)


def inputs(network, image):
    """What to call a network with: KernelWizard takes the blur from the image to its mirror image."""
    return (image, image.flip(-1)) if isinstance(network, KernelWizard) else (image,)


def call(network, image):
    output = network(*inputs(network, image))
    return output if isinstance(output, list) else [output]


def awaken(network):
    """Noise on every parameter: some start at 0 and let nothing pass."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return network


def parameters(name, **options):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in create_model(name, **options).parameters())


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("nafnet-width32", {}, 17_111_907),
        ("nafnet-width64", {}, 67_888_835),
        ("nafnet-width32", {"variant": "sidd"}, 29_159_715),
        ("nafnet-width64", {"variant": "sidd"}, 115_982_915),
        ("mimo-unet", {}, 6_807_171),
        ("mimo-unet-plus", {}, 16_107_651),
        ("restormer", {}, 26_126_644),
        ("kernel-wizard", {}, 49_205_187),
        ("kernel-wizard", {"vae": True}, 115_265_475),
    ],
)
def test_parameter_counts_of_the_published_networks(name, options, count):
    assert parameters(name, **options) == count


def layer(name, bias=True):
    return {f"{name}.weight", f"{name}.bias"} if bias else {f"{name}.weight"}


def layers(prefix, names, bias=True):
    return set().union(*(layer(f"{prefix}.{name}", bias) for name in names))


def nafnet_keys(encoder, middle, decoder):
    blocks = [f"encoders.{i}.{j}" for i, number in enumerate(encoder) for j in range(number)]
    blocks += [f"decoders.{i}.{j}" for i, number in enumerate(decoder) for j in range(number)]
    blocks += [f"middle_blks.{j}" for j in range(middle)]
    names = ["conv1", "conv2", "conv3", "conv4", "conv5", "sca.1", "norm1", "norm2"]
    keys = set().union(*(layers(block, names) | {f"{block}.beta", f"{block}.gamma"} for block in blocks))
    keys |= layer("intro") | layer("ending") | layers("downs", range(len(encoder)))
    return keys | {f"ups.{i}.0.weight" for i in range(len(decoder))}


def mimo_keys(blocks):
    keys = layers("feat_extract", [f"{i}.main.0" for i in range(6)])
    for part in ("Encoder", "Decoder"):
        for i in range(3):
            keys |= layers(f"{part}.{i}.layers", [f"{j}.main.{k}.main.0" for j in range(blocks) for k in (0, 1)])
    for part in ("Convs", "ConvsOut"):
        keys |= layers(part, ["0.main.0", "1.main.0"])
    keys |= layers("AFFs", [f"{i}.conv.{k}.main.0" for i in (0, 1) for k in (0, 1)])
    for i in (1, 2):
        keys |= layer(f"FAM{i}.merge.main.0") | layer(f"SCM{i}.conv.main.0")
        keys |= layers(f"SCM{i}.main", [f"{k}.main.0" for k in range(4)])
    return keys


def restormer_keys(blocks, refinement):
    stages = {"latent": blocks[3], "refinement": refinement}
    stages |= {f"{part}_level{i + 1}": blocks[i] for part in ("encoder", "decoder") for i in range(3)}
    keys = set()
    for stage, number in stages.items():
        for block in (f"{stage}.{k}" for k in range(number)):
            keys |= layers(block, ["norm1.body", "norm2.body"]) | {f"{block}.attn.temperature"}
            keys |= layers(f"{block}.attn", ["qkv", "qkv_dwconv", "project_out"], bias=False)
            keys |= layers(f"{block}.ffn", ["project_in", "dwconv", "project_out"], bias=False)
    sizes = ["down1_2", "down2_3", "down3_4", "up4_3", "up3_2", "up2_1"]
    keys |= {f"{size}.body.0.weight" for size in sizes} | {"patch_embed.proj.weight", "output.weight"}
    return keys | {"reduce_chan_level3.weight", "reduce_chan_level2.weight"}


def wizard_keys(front, back):
    keys = layers("feature_extractor", ["0", "2", "4"])
    keys |= layers("feature_extractor", [f"{6 + i}.conv{k}" for i in range(front) for k in (1, 2)])
    keys |= layers("kernel_extractor.model", ["1", *range(4, 19, 3)], bias=False)
    keys |= layers("kernel_extractor.model", [f"{19 + i}.conv_block.{k}" for i in range(4) for k in (1, 5)], bias=False)
    keys |= {"adapter.model.down.0.weight"} | layer("adapter.model.up.1")
    inner = ["adapter.model" + i * ".submodule" for i in range(1, 5)]
    keys |= {f"{level}.{way}.1.weight" for level in inner for way in ("down", "up")}
    keys |= layers("recon_trunk", [f"{i}.conv{k}" for i in range(back) for k in (1, 2)])
    return keys | layers("recon_trunk", [back, back + 3, back + 6, back + 8])


@pytest.mark.parametrize(
    ("name", "options", "keys"),
    [
        ("nafnet-width32", {}, nafnet_keys((1, 1, 1, 28), 1, (1, 1, 1, 1))),
        ("nafnet-width32", {"window": 384}, nafnet_keys((1, 1, 1, 28), 1, (1, 1, 1, 1))),
        ("nafnet-width64", {"variant": "sidd"}, nafnet_keys((2, 2, 4, 8), 12, (2, 2, 2, 2))),
        ("mimo-unet", {}, mimo_keys(8)),
        ("mimo-unet-plus", {}, mimo_keys(20)),
        ("restormer", {}, restormer_keys((4, 6, 6, 8), 4)),
        ("kernel-wizard", {}, wizard_keys(10, 20)),
        ("kernel-wizard", {"vae": True}, wizard_keys(10, 20)),
    ],
)
def test_keys_of_the_published_files(name, options, keys):
    with torch.device("meta"):
        assert set(create_model(name, **options).state_dict()) == keys


def batch_norm(name):
    return {f"{name}.{part}" for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}


def pyramid_keys():
    keys = {f"head{i}.block{k}.weight" for i in range(1, 5) for k in (0, 1)} | layer("final")
    keys |= {f"fpn.lateral{i}.weight" for i in range(5)}
    for name in ("fpn.td1", "fpn.td2", "fpn.td3", "smooth", "smooth2"):
        keys |= layer(f"{name}.0") | (batch_norm(f"{name}.1") - layer(f"{name}.1"))
    return keys


def mobilenet_keys():
    """MobileNetV2 as the authors of DeblurGAN-v2 build it, and the stages cut from it."""
    keys = pyramid_keys()
    features = [{"0.weight"} | batch_norm("1")]
    features.append({"conv.0.weight", "conv.3.weight"} | batch_norm("conv.1") | batch_norm("conv.4"))
    block = {f"conv.{k}.weight" for k in (0, 3, 6)}.union(*(batch_norm(f"conv.{k}") for k in (1, 4, 7)))
    features += 16 * [block] + [features[0]]
    for stage, (start, end) in {0: (0, 2), 1: (2, 4), 2: (4, 7), 3: (7, 11), 4: (11, 16)}.items():
        for i in range(start, end):
            keys |= {f"fpn.enc{stage}.{i - start}.{key}" for key in features[i]}
    return keys.union(*({f"fpn.features.{i}.{key}" for key in part} for i, part in enumerate(features)))


def inception_keys():
    """Inception-ResNet-v2 by its table, and the stages cut from it."""

    def convs(*names):
        return set().union(*({f"{name}.conv.weight"} | batch_norm(f"{name}.bn") for name in names))

    def branches(*lengths):
        return convs(*(f"branch{i}" + f".{k}" * (n > 1) for i, n in enumerate(lengths) for k in range(n)))

    parts = {name: convs(name) for name in ("conv2d_1a", "conv2d_2a", "conv2d_2b", "conv2d_3b", "conv2d_4a")}
    parts["mixed_5b"] = branches(1, 2, 3) | convs("branch3.1")
    parts["mixed_6a"] = branches(1, 3)
    parts["mixed_7a"] = branches(2, 2, 3)
    for name, number, lengths in (("repeat", 10, (1, 2, 3)), ("repeat_1", 20, (1, 3)), ("repeat_2", 9, (1, 3))):
        block = branches(*lengths) | layer("conv2d")
        parts[name] = {f"{i}.{key}" for i in range(number) for key in block}
    for name in ("conv2d_1a", "conv2d_2a", "conv2d_2b", "conv2d_3b", "conv2d_4a"):
        parts[name] = {key.removeprefix(f"{name}.") for key in parts[name]}
    stages = {
        "enc1": ("conv2d_2a", "conv2d_2b"),
        "enc2": ("conv2d_3b", "conv2d_4a"),
        "enc3": ("mixed_5b", "repeat", "mixed_6a"),
        "enc4": ("repeat_1", "mixed_7a"),
    }
    keys = pyramid_keys() | {f"fpn.enc0.{key}" for key in parts["conv2d_1a"]}
    for stage, names in stages.items():
        keys |= {f"fpn.{stage}.{i}.{key}" for i, name in enumerate(names) for key in parts[name]}
    return keys | {f"fpn.inception.{name}.{key}" for name, part in parts.items() for key in part}


@pytest.mark.parametrize(("encoder", "keys"), [("mobilenet", mobilenet_keys()), ("inception", inception_keys())])
def test_published_keys_of_deblurgan_v2_are_converted(encoder, keys):
    with torch.device("meta"):
        network = create_model(f"deblurgan-v2-{encoder}")
    assert set(network.convert_state_dict(dict.fromkeys(keys, torch.zeros(0)))) == set(network.state_dict())
    assert set(network.convert_state_dict(network.state_dict())) == set(network.state_dict())


def test_deblurgan_v2_has_what_the_layer_tables_say():
    mobile = 928 + 896  # the stem and the first block, with the affine parameters of their normalisations
    inputs = 16
    for outputs, number in ((24, 2), (32, 3), (64, 4), (96, 3), (160, 2)):
        for _ in range(number):
            wide = 6 * inputs
            mobile += inputs * wide + 9 * wide + wide * outputs + 4 * wide + 2 * outputs
            inputs = outputs
    assert parameters("deblurgan-v2-mobilenet") == mobile + decoder(64, (16, 24, 32, 64, 160))

    def conv(inputs, outputs, taps):
        return inputs * outputs * taps + 2 * outputs

    inception = conv(3, 32, 9) + conv(32, 32, 9) + conv(32, 64, 9) + conv(64, 80, 1) + conv(80, 192, 9)
    inception += conv(192, 96, 1) + conv(192, 48, 1) + conv(48, 64, 25) + conv(192, 64, 1) + conv(64, 96, 9)
    inception += conv(96, 96, 9) + conv(192, 64, 1)
    inception += 10 * (3 * conv(320, 32, 1) + conv(32, 32, 9) + conv(32, 48, 9) + conv(48, 64, 9) + 128 * 320 + 320)
    inception += conv(320, 384, 9) + conv(320, 256, 1) + conv(256, 256, 9) + conv(256, 384, 9)
    inception += 20 * (conv(1088, 192, 1) + conv(1088, 128, 1) + conv(128, 160, 7) + conv(160, 192, 7))
    inception += 20 * (384 * 1088 + 1088)
    inception += 3 * conv(1088, 256, 1) + conv(256, 384, 9) + 2 * conv(256, 288, 9) + conv(288, 320, 9)
    assert parameters("deblurgan-v2-inception") == inception + decoder(128, (32, 64, 192, 1088, 2080))


def decoder(width, channels):
    heads = 4 * 9 * (2 * width * width + width * width)
    laterals = channels[0] * width + sum(channels[1:]) * 2 * width
    top_down = 3 * (9 * (2 * width) ** 2 + 2 * width)
    smooth = 9 * 4 * width * width + width + 9 * width * width // 2 + width // 2
    return heads + laterals + top_down + smooth + 27 * width // 2 + 3


@every_network
def test_images_in_images_out(name):
    network, image = small(name), images(name, batch=2)
    sizes = [4, 2, 1] if name.startswith("mimo") else [1]
    shapes = [(2, 3, image.shape[2] // size, image.shape[3] // size) for size in sizes]
    with torch.no_grad():
        assert [tuple(output.shape) for output in call(network, image)] == shapes


@every_network
def test_gradients_reach_every_parameter(name):
    network = awaken(small(name))
    sum(output.square().sum() for output in call(network, images(name, batch=2))).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    without = [key for key, parameter in network.named_parameters() if not parameter.grad.any()]
    # A bias before an instance normalisation is subtracted again; the published files have it all the same.
    assert all(key.endswith(".0.bias") and key.startswith(("fpn.td", "smooth")) for key in without), without


@every_network
def test_without_its_last_convolution_a_network_returns_its_input(name):
    network, image = small(name), images(name)
    ends = {
        "nafnet": ["ending"],
        "mimo": ["ConvsOut.0.main.0", "ConvsOut.1.main.0", "feat_extract.5.main.0"],
        "restormer": ["output"],
        "deblurgan": ["final"],
        "kernel": ["recon_trunk.9"],
    }[name.split("-")[0]]
    for end in ends:
        for parameter in network.get_submodule(end).parameters():
            nn.init.zeros_(parameter)
    with torch.no_grad():
        outputs = call(network, image)
    for output in outputs:
        torch.testing.assert_close(output, nn.functional.interpolate(image, output.shape[-2:], mode="nearest"))


@every_network
def test_images_of_a_batch_do_not_see_each_other(name):
    network, pair = awaken(small(name)).double(), images(name, batch=2, dtype=torch.float64)
    with torch.no_grad():
        together = call(network, pair)
        alone = [torch.cat(parts) for parts in zip(*(call(network, image[None]) for image in pair), strict=True)]
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@every_network
def test_bfloat16(name):
    network = small(name).bfloat16()
    with torch.no_grad():
        outputs = call(network, images(name, dtype=torch.bfloat16))
    assert all(output.dtype == torch.bfloat16 and output.isfinite().all() for output in outputs)


@pytest.mark.parametrize("name", sorted(SMALL.keys() - {"deblurgan-v2-inception"}))  # which takes 10 s
def test_compiles(name):
    network = small(name)
    arguments = inputs(network, images(name))
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(*arguments), network(*arguments))


@every_network
def test_exports(name):
    network = small(name)
    arguments = inputs(network, images(name))
    with torch.no_grad():
        exported = torch.export.export(network, arguments).module()
        torch.testing.assert_close(exported(*arguments), network(*arguments))


@every_network
def test_sizes_that_do_not_fit(name):
    network, image = small(name), images(name)
    assert all(side % network.multiple == 0 for side in image.shape[-2:])
    advice = "crop or pad" if name == "kernel-wizard" else "wrap the network as reblurkit.models.FullSize"
    for other in (image[..., :-1], image[..., 1:, :]):
        with pytest.raises(ShapeError, match=rf"must divide by {network.multiple}.*{advice}"):
            call(network, other)
    with pytest.raises(ShapeError, match="a batch of images"):
        call(network, image[0])


@pytest.mark.parametrize(("name", "least"), [("mobilenet", 64), ("inception", 128)])
def test_deblurgan_v2_needs_room_for_its_statistics(name, least):
    network = DeblurGANv2(name, width=8)
    with torch.no_grad():
        assert network(torch.rand(1, 3, least, least)).isfinite().all()
    with pytest.raises(ShapeError, match=f"at least {least}"):
        network(torch.rand(1, 3, least, least - 32))


def test_kernel_wizard_with_a_distribution_of_codes():
    wizard, sharp = KernelWizard(**WIZARD, vae=True), torch.rand(1, 3, 256, 384)
    with torch.no_grad():
        mean, deviation = wizard.distribution(sharp, sharp.flip(-1))
        torch.manual_seed(1)
        kernel = wizard.kernel(sharp, sharp.flip(-1))
        torch.manual_seed(1)
        torch.testing.assert_close(kernel, mean + deviation * torch.randn(1, 16, 2, 3))
        torch.manual_seed(1)
        torch.testing.assert_close(wizard(sharp, sharp.flip(-1)), wizard.blur(sharp, kernel))
        assert not torch.equal(wizard.blur(sharp, kernel), wizard.blur(sharp, mean))
    assert KernelWizard(**WIZARD).distribution(sharp, sharp)[1] is None


def test_kernel_wizard_says_which_codes_fit():
    wizard, sharp = KernelWizard(**WIZARD), torch.rand(1, 3, 256, 256)
    with pytest.raises(ShapeError, match="take it from a pair of images of that size"):
        wizard.blur(sharp, torch.rand(1, 16, 2, 3))
    with pytest.raises(ShapeError, match="same shape"):
        wizard.kernel(sharp, sharp[..., :128])
    with pytest.raises(ShapeError, match="at least 256"):
        wizard.kernel(sharp[..., :128], sharp[..., :128])
    assert wizard.blur(sharp[..., :128], torch.rand(1, 16, 2, 1)).shape == (1, 3, 256, 128)


@pytest.mark.parametrize(
    "network",
    [
        lambda: NAFNet(0),
        lambda: NAFNet(variant="reds"),
        lambda: NAFNet(8, encoder_blocks=(1, 1)),
        lambda: NAFNet(8, window=8),
        lambda: MIMOUNet(-1),
        lambda: MIMOUNet(width=5),
        lambda: MIMOUNet(dropout=1),
        lambda: Restormer(blocks=(1, 1, 1)),
        lambda: Restormer(width=48, heads=(1, 2, 4, 7)),
        lambda: DeblurGANv2("resnet"),
        lambda: DeblurGANv2(width=1),
        lambda: KernelWizard(width=0),
    ],
)
def test_arguments_that_make_no_network(network):
    with torch.device("meta"), pytest.raises(ArgumentError, match="must"):
        network()


def test_output_is_a_list_only_where_there_are_scales():
    network = small("mimo-unet")
    with torch.no_grad():
        assert finest_scale(network(images("mimo-unet"))).shape == (1, 3, 16, 24)
