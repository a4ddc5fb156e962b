"""Every network against a plain computation of its description, from the published keys, in float64."""

from __future__ import annotations

import copy
import math

import pytest
import timm
import torch
from torch.nn import functional as F

from reblurkit.models.deblur.deblurgan_v2 import DeblurGANv2
from reblurkit.models.deblur.mimo_unet import MIMOUNet
from reblurkit.models.deblur.nafnet import NAFNet, window_mean
from reblurkit.models.deblur.restormer import Restormer
from reblurkit.models.kernel_wizard import KernelWizard


class Weights:
    """A state dict, and layers that look up their weights in it by name."""

    def __init__(self, state, prefix=""):
        self.state, self.prefix = state, prefix

    def at(self, name):
        return Weights(self.state, f"{self.prefix}{name}.")

    def __getitem__(self, name):
        return self.state[self.prefix + name]

    def conv(self, name, x, padding=None, **kwargs):
        weight = self[f"{name}.weight"]
        padding = weight.shape[-1] // 2 if padding is None else padding
        return F.conv2d(x, weight, self.state.get(f"{self.prefix}{name}.bias"), padding=padding, **kwargs)

    def up(self, name, x):
        bias = self.state.get(f"{self.prefix}{name}.bias")
        return F.conv_transpose2d(x, self[f"{name}.weight"], bias, stride=2, padding=1)

    def norm(self, name, x, eps):
        mean = x.mean(1, keepdim=True)
        x = (x - mean) / ((x - mean).square().mean(1, keepdim=True) + eps).sqrt()
        return x * self[f"{name}.weight"].view(-1, 1, 1) + self[f"{name}.bias"].view(-1, 1, 1)


def random(network):
    """The network in float64 with every parameter random, and its weights."""
    with torch.no_grad():
        for parameter in network.parameters():
            spread = 1 / math.sqrt(parameter[0].numel()) if parameter.ndim > 1 else 1
            parameter.copy_(spread * torch.randn_like(parameter))
    network.double().eval()
    return network, Weights(network.state_dict())


def agree(one, other):
    assert one.std() > 1e-3 * one.abs().max() > 0  # neither is constant
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9 * other.std().item())


# NAFNet


def naf_block(w, x, pool):
    y = w.norm("norm1", x, 1e-6)
    y = w.conv("conv1", y)
    y = w.conv("conv2", y, groups=y.shape[1])
    half = y.shape[1] // 2
    y = y[:, :half] * y[:, half:]
    y = y * w.conv("sca.1", pool(y))
    x = x + w["beta"] * w.conv("conv3", y)
    y = w.conv("conv4", w.norm("norm2", x, 1e-6))
    return x + w["gamma"] * w.conv("conv5", y[:, :half] * y[:, half:])


def nafnet(w, image, window):
    def pool(x):
        side = window // (image.shape[-1] // x.shape[-1]) if window else 10**6
        return slow_window_mean(x, side) if side < max(x.shape[-2:]) else x.mean((2, 3), keepdim=True)

    x = w.conv("intro", image)
    full = naf_block(w.at("encoders.0.0"), x, pool)
    half = naf_block(w.at("encoders.1.1"), naf_block(w.at("encoders.1.0"), down(w, 0, full), pool), pool)
    x = naf_block(w.at("middle_blks.0"), down(w, 1, half), pool)
    x = naf_block(w.at("decoders.0.0"), F.pixel_shuffle(w.conv("ups.0.0", x), 2) + half, pool)
    x = naf_block(w.at("decoders.1.0"), F.pixel_shuffle(w.conv("ups.1.0", x), 2) + full, pool)
    return w.conv("ending", x) + image


def down(w, level, x):
    return w.conv(f"downs.{level}", x, padding=0, stride=2)


def slow_window_mean(x, window):
    """The mean over the window around each pixel that lies in the image, pixel by pixel."""
    height, width = x.shape[-2:]
    rows, columns = min(window, height), min(window, width)
    means = torch.empty_like(x)
    for i in range(height):
        top = min(max(i - (rows - 1) // 2, 0), height - rows)
        for j in range(width):
            left = min(max(j - (columns - 1) // 2, 0), width - columns)
            means[..., i, j] = x[..., top : top + rows, left : left + columns].mean((-2, -1))
    return means


@pytest.mark.parametrize("window", [None, 8, 12, 16, 20, 24])
def test_nafnet(window):
    network, weights = random(NAFNet(4, encoder_blocks=(1, 2), middle_blocks=1, decoder_blocks=(1, 1), window=window))
    image = torch.rand(2, 3, 16, 24, dtype=torch.float64)
    agree(network(image), nafnet(weights, image, window))
    assert not torch.allclose(network.local(8)(image), network.local(None)(image))


def test_nafnet_is_the_same_in_every_form_on_images_no_larger_than_the_window():
    network, _ = random(NAFNet(4, encoder_blocks=(1, 1), middle_blocks=1, decoder_blocks=(1, 1)))
    image = torch.rand(1, 3, 16, 24, dtype=torch.float64)
    whole = network(image)
    torch.testing.assert_close(network.local(24)(image), whole, rtol=0, atol=0)
    assert not torch.allclose(network.local(20)(image), whole)


@pytest.mark.parametrize(("size", "window"), [((9, 7), (3, 2)), ((6, 6), (5, 6)), ((5, 8), (1, 8)), ((4, 4), (4, 4))])
def test_window_mean(size, window):
    image = torch.rand(2, 3, *size, dtype=torch.float64, requires_grad=True)
    expected = torch.empty_like(image)
    for i in range(size[0]):
        top = min(max(i - (window[0] - 1) // 2, 0), size[0] - window[0])
        for j in range(size[1]):
            left = min(max(j - (window[1] - 1) // 2, 0), size[1] - window[1])
            expected[..., i, j] = image[..., top : top + window[0], left : left + window[1]].mean((-2, -1))
    torch.testing.assert_close(window_mean(image, window), expected, rtol=0, atol=1e-14)
    assert torch.autograd.gradcheck(lambda x: window_mean(x, window), image.detach()[:1, :1].requires_grad_())


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 2e-6), (torch.bfloat16, 2**-8)])
def test_window_mean_does_not_lose_digits_in_long_sums(dtype, bound):
    image = torch.rand(1, 1, 8, 4096).to(dtype)
    exact = window_mean(image.double(), (8, 64))
    assert (window_mean(image, (8, 64)) - exact).abs().max() < bound


# MIMO-UNet


def mimo(w, image):
    def conv(name, x, **kwargs):
        return w.conv(f"{name}.main.0", x, **kwargs)

    def block(name, x):
        return x + conv(f"{name}.layers.0.main.1", conv(f"{name}.layers.0.main.0", x).relu())

    def shallow(name, x):
        y = x
        for i in range(4):
            y = conv(f"{name}.main.{i}", y).relu()
        return conv(f"{name}.conv", torch.cat((x, y), 1))

    def attend(name, x, y):
        return x + conv(f"{name}.merge", x * y)

    def fuse(i, *xs):
        return conv(f"AFFs.{i}.conv.1", conv(f"AFFs.{i}.conv.0", torch.cat(xs, 1)).relu())

    def resize(x, scale):
        return F.interpolate(x, scale_factor=scale)

    def upwards(i, x):
        return w.up(f"feat_extract.{i}.main.0", x).relu()

    image2, image4 = resize(image, 0.5), resize(resize(image, 0.5), 0.5)
    e1 = block("Encoder.0", conv("feat_extract.0", image).relu())
    e2 = conv("feat_extract.1", e1, stride=2).relu()
    e2 = block("Encoder.1", attend("FAM2", e2, shallow("SCM2", image2)))
    e3 = conv("feat_extract.2", e2, stride=2).relu()
    e3 = block("Encoder.2", attend("FAM1", e3, shallow("SCM1", image4)))
    skip1 = fuse(0, e1, resize(e2, 2), resize(resize(e3, 2), 2))
    skip2 = fuse(1, resize(e1, 0.5), e2, resize(e3, 2))
    d3 = block("Decoder.0", e3)
    d2 = block("Decoder.1", conv("Convs.0", torch.cat((upwards(3, d3), skip2), 1)).relu())
    d1 = block("Decoder.2", conv("Convs.1", torch.cat((upwards(4, d2), skip1), 1)).relu())
    return [conv("ConvsOut.0", d3) + image4, conv("ConvsOut.1", d2) + image2, conv("feat_extract.5", d1) + image]


@pytest.mark.parametrize("dropout", [0, 0.1])
def test_mimo_unet(dropout):
    network, weights = random(MIMOUNet(1, 4, dropout))
    image = torch.rand(2, 3, 12, 16, dtype=torch.float64)
    for one, other in zip(network(image), mimo(weights, image), strict=True):
        agree(one, other)


def test_mimo_unet_plus_drops_whole_channels_of_skips_in_training():
    network, _ = random(MIMOUNet(1, 8, dropout=0.5))
    seen = []
    network.drop.register_forward_hook(lambda module, given, returned: seen.append((given[0], returned)))
    network.train()(torch.rand(1, 3, 16, 16, dtype=torch.float64))
    assert [returned.shape[1] for _, returned in seen] == [16, 8]
    for given, returned in seen:
        kept = returned.abs().amax((0, 2, 3)) > 0
        assert kept.any()
        assert not kept.all()
        torch.testing.assert_close(returned[:, kept], 2 * given[:, kept])


# Restormer


def attention(w, x, heads):
    batch, channels, height, width = x.shape
    qkv = w.conv("qkv", x)
    qkv = w.conv("qkv_dwconv", qkv, groups=3 * channels)
    out = torch.empty_like(x)
    size = channels // heads
    for b in range(batch):
        for head in range(heads):
            q, k, v = (
                qkv[b, part * channels + head * size :][:size].reshape(size, height * width) for part in range(3)
            )
            q, k = (rows / rows.norm(dim=1, keepdim=True) for rows in (q, k))
            scores = (w["temperature"][head] * (q @ k.T)).exp()
            scores = scores / scores.sum(1, keepdim=True)
            out[b, head * size : (head + 1) * size] = (scores @ v).reshape(size, height, width)
    return w.conv("project_out", out)


def feed_forward(w, x):
    x = w.conv("project_in", x)
    x = w.conv("dwconv", x, groups=x.shape[1])
    hidden = x.shape[1] // 2
    gate = 0.5 * x[:, :hidden] * (1 + torch.erf(x[:, :hidden] / math.sqrt(2)))
    return w.conv("project_out", gate * x[:, hidden:])


def restormer(w, image, heads):
    def stage(name, x, level):
        for i in range(2 if name == "encoder_level2" else 1):
            block = w.at(f"{name}.{i}")
            x = x + attention(block.at("attn"), block.norm("norm1.body", x, 1e-5), heads[level])
            x = x + feed_forward(block.at("ffn"), block.norm("norm2.body", x, 1e-5))
        return x

    def smaller(name, x):
        return F.pixel_unshuffle(w.conv(f"{name}.body.0", x), 2)

    def larger(name, x, skip):
        return torch.cat((F.pixel_shuffle(w.conv(f"{name}.body.0", x), 2), skip), 1)

    e1 = stage("encoder_level1", w.conv("patch_embed.proj", image), 0)
    e2 = stage("encoder_level2", smaller("down1_2", e1), 1)
    e3 = stage("encoder_level3", smaller("down2_3", e2), 2)
    x = stage("latent", smaller("down3_4", e3), 3)
    x = stage("decoder_level3", w.conv("reduce_chan_level3", larger("up4_3", x, e3)), 2)
    x = w.conv("reduce_chan_level2", larger("up3_2", x, e2))
    for i in range(2):
        block = w.at(f"decoder_level2.{i}")
        x = x + attention(block.at("attn"), block.norm("norm1.body", x, 1e-5), heads[1])
        x = x + feed_forward(block.at("ffn"), block.norm("norm2.body", x, 1e-5))
    x = stage("decoder_level1", larger("up2_1", x, e1), 0)
    return w.conv("output", stage("refinement", x, 0)) + image


def test_restormer():
    heads = (2, 1, 4, 2)
    network, weights = random(Restormer(8, (1, 2, 1, 1), 1, heads))
    image = torch.rand(2, 3, 16, 24, dtype=torch.float64)
    agree(network(image), restormer(weights, image, heads))


def test_widths_of_the_feed_forward_networks_are_rounded_down():
    with torch.device("meta"):
        hidden = [block[0].ffn.project_out.in_channels for block in (Restormer().encoder_level1, Restormer().latent)]
    assert hidden == [127, 1021]  # 2.66 times 48 and 384: 127.68 and 1021.44


# DeblurGAN-v2


def batch_norm(w, name, x, eps):
    """In training mode: the statistics of the batch, here of one image."""
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
    return w[f"{name}.weight"].view(-1, 1, 1) * (x - mean) / (var + eps).sqrt() + w[f"{name}.bias"].view(-1, 1, 1)


def mobilenet(w, x):
    """The five stages, by the published keys."""
    outputs, index = [], 0
    w = w.at("features")
    strides = [2, 1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1]
    for end in (2, 4, 7, 11, 16):
        while index < end:
            v, stride, before = w.at(index), strides[index], x
            if index == 0:
                x = batch_norm(v, "1", v.conv("0", x, stride=2), 1e-5).clamp(0, 6)
            else:
                v = v.at("conv")
                first = 0
                if index > 1:
                    x = batch_norm(v, "1", v.conv("0", x), 1e-5).clamp(0, 6)
                    first = 3
                x = v.conv(str(first), x, stride=stride, groups=x.shape[1])
                x = batch_norm(v, str(first + 1), x, 1e-5).clamp(0, 6)
                x = batch_norm(v, str(first + 4), v.conv(str(first + 3), x), 1e-5)
                x = x + before if stride == 1 and x.shape == before.shape else x
            index += 1
        outputs.append(x)
    return outputs


def pyramid(w, image, stages, pad):
    """Everything after the encoder, with images in [-1, 1]."""

    def up(x, factor):
        return x.repeat_interleave(factor, 2).repeat_interleave(factor, 3)

    def norm(x):
        return (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), correction=0, keepdim=True) + 1e-5).sqrt()

    laterals = [pad(i, w.conv(f"fpn.lateral{i}", stage)) for i, stage in enumerate(stages)]
    maps = [laterals[4]]
    for i in (1, 2, 3):
        maps.append(norm(w.conv(f"fpn.td{i}.0", laterals[4 - i] + up(maps[-1], 2))).relu())
    heads = []
    for i, x in zip((4, 3, 2, 1), maps, strict=True):
        x = w.conv(f"head{i}.block1", w.conv(f"head{i}.block0", x).relu()).relu()
        heads.append(up(x, 2 ** (i - 1)))
    x = up(norm(w.conv("smooth.0", torch.cat(heads, 1))).relu(), 2) + laterals[0]
    x = up(norm(w.conv("smooth2.0", x)).relu(), 2)
    return (w.conv("final", x).tanh() + image).clamp(-1, 1)


def published_mobilenet(network):
    """The network's weights in a file as the authors publish it."""
    layers = {"conv_pw": 0, "bn1": 1, "conv_dw": 3, "bn2": 4, "conv_pwl": 6, "bn3": 7}
    first = {"conv_dw": 0, "bn1": 1, "conv_pw": 3, "bn2": 4}
    starts = {"enc0": 0, "enc1": 2, "enc2": 4, "enc3": 7, "enc4": 11}
    file = {}
    for key, value in network.state_dict().items():
        parts = key.split(".")
        if parts[0] == "fpn" and parts[1] in starts:
            place = starts[parts[1]] + int(parts[2])
            names = first if place == 1 else layers
            rest = parts[3:] if place == 0 else ["conv", str(names[parts[3]]), *parts[4:]]
            file[".".join(["fpn", "features", str(place), *rest])] = value
            file[".".join([*parts[:3], *rest])] = value
        else:
            file[key] = value
    file["fpn.features.16.conv.0.weight"] = torch.zeros(960, 160, 1, 1)
    file["fpn.enc0.0.1.running_mean"] = torch.zeros(32)
    file["fpn.td1.1.running_var"] = torch.ones(16)
    return file


def test_deblurgan_v2_with_mobilenet_from_a_published_file():
    network, _ = random(DeblurGANv2("mobilenet", width=8))
    file = published_mobilenet(network)
    loaded = DeblurGANv2("mobilenet", width=8).double()
    loaded.load_state_dict(file, strict=True)
    image = torch.rand(1, 3, 64, 96, dtype=torch.float64)
    weights = Weights(file)
    expected = pyramid(weights, 2 * image - 1, mobilenet(weights.at("fpn"), 2 * image - 1), lambda i, x: x)
    for mode in (True, False):
        agree(loaded.train(mode)(image), (expected + 1) / 2)


def test_deblurgan_v2_with_inception_from_a_published_file():
    network, weights = random(DeblurGANv2("inception", width=8))
    classifier = timm.create_model("inception_resnet_v2").double().train()
    names = {
        "enc0": ["conv2d_1a"],
        "enc1": ["conv2d_2a", "conv2d_2b", "maxpool_3a"],
        "enc2": ["conv2d_3b", "conv2d_4a", "maxpool_5a"],
        "enc3": ["mixed_5b", "repeat", "mixed_6a"],
        "enc4": ["repeat_1", "mixed_7a"],
    }
    file = {f"fpn.inception.{key}": value for key, value in classifier.state_dict().items()}
    for stage, parts in names.items():
        for i, part in enumerate(parts):
            place = f"fpn.{stage}" if stage == "enc0" else f"fpn.{stage}.{i}"
            for key, value in classifier.get_submodule(part).state_dict().items():
                file[f"{place}.{key}"] = value
    file |= {key: value for key, value in network.state_dict().items() if not key.startswith("fpn.enc")}
    network.load_state_dict(file, strict=True)

    image = torch.rand(1, 3, 128, 160, dtype=torch.float64)
    x, stages = 2 * image - 1, []
    for parts in names.values():
        for part in parts:
            x = classifier.get_submodule(part)(x)
        stages.append(x)
    weights = Weights(file)
    borders = [(0, 1, 0, 1), (1, 1, 1, 1), (1, 2, 1, 2), (1, 1, 1, 1), (1, 1, 1, 1)]
    expected = pyramid(weights, 2 * image - 1, stages, lambda i, x: F.pad(x, borders[i], mode="reflect"))
    agree(network(image), (expected + 1) / 2)


def test_published_keys_load_into_a_module_that_holds_the_network():
    holder = torch.nn.ModuleDict({"network": DeblurGANv2("mobilenet", width=8)})
    file = {f"network.{key}": value for key, value in published_mobilenet(holder["network"]).items()}
    holder.load_state_dict(file, strict=True)
    copy.deepcopy(holder).load_state_dict(file, strict=True)
    with pytest.raises(RuntimeError, match=r"Missing key.*network\.final\.bias"):
        holder.load_state_dict({key: value for key, value in file.items() if key != "network.final.bias"})


# KernelWizard


def residual(w, name, x):
    return x + w.conv(f"{name}.conv2", w.conv(f"{name}.conv1", x).relu())


def extract(w, x):
    for i in range(3):
        x = F.leaky_relu(w.conv(f"feature_extractor.{2 * i}", x, stride=1 if i == 0 else 2), 0.1)
    return residual(w, "feature_extractor.6", x)


def encode(w, sharp, blurry):
    w, x = w.at("kernel_extractor.model"), torch.cat((extract(w, sharp), extract(w, blurry)), 1)
    x = w.conv("1", F.pad(x, (3, 3, 3, 3), mode="reflect"), padding=0).relu()
    for i in range(4, 19, 3):
        x = w.conv(str(i), x, stride=2).relu()
    for i in range(19, 23):
        y = w.conv(f"{i}.conv_block.1", F.pad(x, (1, 1, 1, 1), mode="reflect"), padding=0).relu()
        x = x + w.conv(f"{i}.conv_block.5", F.pad(y, (1, 1, 1, 1), mode="reflect"), padding=0)
    return x


def apply(w, sharp, kernel):
    features = extract(w, sharp)
    levels = [w.at("adapter.model" + i * ".submodule") for i in range(5)]
    skips = [levels[0].conv("down.0", features, padding=1, stride=2)]
    for level in levels[1:]:
        skips.append(level.conv("down.1", F.leaky_relu(skips[-1], 0.2), padding=1, stride=2))
    x = torch.cat((skips[4], kernel), 1)
    for i in range(4, 0, -1):
        x = torch.cat((levels[i].up("up.1", x.relu()), F.leaky_relu(skips[i - 1], 0.2)), 1)
    x = residual(w, "recon_trunk.0", levels[0].up("up.1", x.relu()).tanh())
    for i in (1, 4):
        x = F.leaky_relu(F.pixel_shuffle(w.conv(f"recon_trunk.{i}", x), 2), 0.1)
    return w.conv("recon_trunk.9", F.leaky_relu(w.conv("recon_trunk.7", x), 0.1)) + sharp


@pytest.mark.parametrize("vae", [False, True])
def test_kernel_wizard(vae):
    network, weights = random(KernelWizard(4, 12, vae=vae, front_blocks=1, back_blocks=1))
    sharp, blurry, other = torch.rand(3, 2, 3, 256, 256, dtype=torch.float64)
    mean, deviation = network.distribution(sharp, blurry)
    agree(mean if not vae else torch.cat((mean, deviation), 1), encode(weights, sharp, blurry))
    kernel = torch.randn(2, 12, 2, 2, dtype=torch.float64)
    agree(network.blur(other, kernel), apply(weights, other, kernel))
    assert not torch.allclose(network.blur(other, kernel), network.blur(other, 0 * kernel))
