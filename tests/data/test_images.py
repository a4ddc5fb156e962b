from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from tifffile import TiffFile, imwrite

from reblurkit.data import decoding, read_image, write_image
from reblurkit.data.images import ImageKind, image_kind, image_size
from reblurkit.errors import ArgumentError, BackendError, DatasetNotFoundError, ImageFileError, ShapeError

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def png16(path, array, colour=2, behind=b""):
    """A 16-bit PNG of a type of colour, written by hand: Pillow cannot. EXIF may stand behind the pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, _ = array.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    png = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows))
    png += (chunk(b"eXIf", behind) if behind else b"") + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + png)


def expected(array, largest=255):
    return torch.from_numpy(array.astype(np.float32) / largest).permute(2, 0, 1)


def test_8_bit_rgb(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    torch.testing.assert_close(read_image(tmp_path / "a.png"), expected(RGB), rtol=0, atol=0)


def test_16_bit_colour_png_and_tiff_keep_their_depth(tmp_path):
    array = np.random.default_rng(0).integers(0, 65536, (5, 7, 3), dtype=np.uint16)
    png16(tmp_path / "a.png", array)
    imwrite(tmp_path / "a.tiff", array, photometric="rgb")
    for name in ("a.png", "a.tiff"):
        torch.testing.assert_close(read_image(tmp_path / name), expected(array, 65535), rtol=0, atol=0)


def test_16_bit_grey(tmp_path):
    grey = np.random.default_rng(0).integers(0, 65536, (5, 7), dtype=np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    torch.testing.assert_close(image, expected(np.repeat(grey[..., None], 3, 2), 65535), rtol=0, atol=0)


def test_grey_gets_three_equal_channels(tmp_path):
    Image.fromarray(RGB[..., 0]).save(tmp_path / "a.png")
    torch.testing.assert_close(read_image(tmp_path / "a.png"), expected(np.repeat(RGB[..., :1], 3, 2)), rtol=0, atol=0)


def test_alpha_is_dropped(tmp_path):
    alpha = np.full((5, 7, 1), 9, dtype=np.uint8)
    Image.fromarray(np.concatenate([RGB, alpha], 2)).save(tmp_path / "a.png")
    torch.testing.assert_close(read_image(tmp_path / "a.png"), expected(RGB), rtol=0, atol=0)


@pytest.mark.parametrize("mode", ["CMYK", "P", "1"])
def test_other_modes_become_rgb(tmp_path, mode):
    source = Image.fromarray(RGB).convert(mode)
    path = tmp_path / ("a.tiff" if mode == "1" else "a.jpg" if mode == "CMYK" else "a.png")
    source.save(path, **({"quality": 100} if mode == "CMYK" else {}))
    with Image.open(path) as image:
        reference = np.asarray(image.convert("RGB"))
    torch.testing.assert_close(read_image(path), expected(reference), rtol=0, atol=0)


def test_camera_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    image = read_image(tmp_path / "a.png")
    torch.testing.assert_close(image, expected(np.rot90(RGB, -1).copy()), rtol=0, atol=0)
    assert image_size(tmp_path / "a.png") == (7, 5)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_deep_files_is_that_of_pillow(tmp_path, orientation):
    from PIL import ImageOps

    array = RGB.astype(np.uint16) * 257
    imwrite(tmp_path / "a.tiff", array, photometric="rgb", extratags=[(274, 3, 1, orientation)])
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        reference = np.asarray(ImageOps.exif_transpose(image))
    for name in ("a.png", "a.tiff"):
        torch.testing.assert_close(read_image(tmp_path / name), expected(reference), rtol=0, atol=0)
        assert image_size(tmp_path / name) == reference.shape[:2]


@pytest.mark.parametrize("mode", ["CMYK", "P", "RGBA", "L"])
def test_tiff_files_are_read_as_what_they_mean(tmp_path, mode):
    Image.fromarray(RGB).convert(mode).save(tmp_path / "a.tiff", compression="tiff_lzw")
    with Image.open(tmp_path / "a.tiff") as image:
        reference = np.asarray(image.convert("RGB"))
    torch.testing.assert_close(read_image(tmp_path / "a.tiff"), expected(reference), rtol=0, atol=0)


def test_inverted_and_many_page_tiff_files(tmp_path):
    grey = Image.fromarray(RGB[..., 0])
    grey.save(tmp_path / "inverted.tiff", tiffinfo={262: 0})
    grey.save(tmp_path / "pages.tiff", save_all=True, append_images=[Image.fromarray(RGB[..., 1])])
    with Image.open(tmp_path / "inverted.tiff") as image:
        reference = np.asarray(image.convert("RGB"))
    torch.testing.assert_close(read_image(tmp_path / "inverted.tiff"), expected(reference), rtol=0, atol=0)
    first = expected(np.repeat(RGB[..., :1], 3, 2))
    torch.testing.assert_close(read_image(tmp_path / "pages.tiff"), first, rtol=0, atol=0)


def test_written_files_are_clamped_and_rounded(tmp_path):
    image = torch.tensor([-0.2, 0.5, 1.3]).view(3, 1, 1).expand(3, 2, 2)
    write_image(image, tmp_path / "new" / "a.png")
    with Image.open(tmp_path / "new" / "a.png") as written:
        assert written.getpixel((0, 0)) == (0, 128, 255)
    with pytest.raises(ShapeError, match="one RGB image"):
        write_image(image[None], tmp_path / "b.png")
    with pytest.raises(ArgumentError, match="expected a suffix of"):
        write_image(image, tmp_path / "b")
    with pytest.raises(ArgumentError, match="holds NaN"):
        write_image(image * float("nan"), tmp_path / "b.png")


def test_bad_files_are_named(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "good.png")
    (tmp_path / "truncated.png").write_bytes((tmp_path / "good.png").read_bytes()[:60])
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.tiff").touch()
    (tmp_path / "floats.tiff").write_bytes(b"II*\0")
    for name in ("truncated.png", "empty.png", "text.png", "empty.tiff", "floats.tiff"):
        with pytest.raises(ImageFileError, match=f"cannot read image .*{name}: "):
            read_image(tmp_path / name)
    with pytest.raises(ImageFileError, match="the file is empty"):
        image_size(tmp_path / "empty.png")
    with pytest.raises(DatasetNotFoundError, match="no image file"):
        read_image(tmp_path / "missing.png")


def test_floating_point_files_are_refused(tmp_path):
    imwrite(tmp_path / "a.tiff", RGB[..., 0].astype(np.float32))
    with pytest.raises(ImageFileError, match="expected 8 or 16 bits per value, but it holds float32"):
        read_image(tmp_path / "a.tiff")


def test_writing_16_bits_and_a_profile(tmp_path):
    array = np.random.default_rng(0).integers(0, 65536, (5, 7, 3), dtype=np.uint16)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name, bits in (("deep.png", 16), ("shallow.png", 8)):
        write_image(expected(array, 65535), tmp_path / name, ImageKind(bits, profile))
        assert image_kind(tmp_path / name) == ImageKind(bits, profile)
        tolerance = 0 if bits == 16 else 0.51 / 255
        torch.testing.assert_close(read_image(tmp_path / name), expected(array, 65535), rtol=0, atol=tolerance)
    write_image(expected(array, 65535), tmp_path / "plain.png", ImageKind(16))
    assert image_kind(tmp_path / "plain.png") == ImageKind(16)
    with pytest.raises(ArgumentError, match=r"expected 8 bits, or 16 in a \.png file, but came 16"):
        write_image(expected(array, 65535), tmp_path / "a.jpg", ImageKind(16))


def test_the_kind_of_grey_palette_and_broken_files(tmp_path):
    grey = np.random.default_rng(0).integers(0, 65536, (5, 7), dtype=np.uint16)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    gamma = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    Image.fromarray(RGB[..., 0]).save(tmp_path / "profile.png", icc_profile=gamma)  # of no RGB values
    assert image_kind(tmp_path / "grey.png") == ImageKind(16)
    assert image_kind(tmp_path / "profile.png") == ImageKind()
    (tmp_path / "broken.png").write_bytes(b"")
    with pytest.raises(ImageFileError, match="the file is empty"):
        image_kind(tmp_path / "broken.png")


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path, monkeypatch):
    write_image(expected(RGB), tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()

    def full(self, path, **_):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(ImageFileError, match=r"cannot write .*a\.png: No space left on device"):
        write_image(1 - expected(RGB), tmp_path / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == before


def test_16_bit_tiff_files_of_other_programs(tmp_path):
    array = np.random.default_rng(0).integers(0, 65536, (5, 7, 3), dtype=np.uint16)
    grey = torch.from_numpy(array[..., 0].astype(np.float32) / 65535).expand(3, 5, 7)
    imwrite(tmp_path / "planar.tif", array.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    imwrite(tmp_path / "big.tif", array[..., 0], byteorder=">", photometric="minisblack")
    imwrite(tmp_path / "white.tif", 65535 - array[..., 0], photometric="miniswhite")
    torch.testing.assert_close(read_image(tmp_path / "planar.tif"), expected(array, 65535), rtol=0, atol=0)
    torch.testing.assert_close(read_image(tmp_path / "big.tif"), grey, rtol=0, atol=0)
    torch.testing.assert_close(read_image(tmp_path / "white.tif"), grey, rtol=0, atol=0)


def lzw(data):
    """TIFF's LZW, as its specification gives it."""
    codes, table, word = [(256, 9)], {bytes([value]): value for value in range(256)}, b""
    for value in data:
        longer = word + bytes([value])
        if longer in table:
            word = longer
            continue
        width = max((len(table) + 2).bit_length(), 9)
        codes.append((table[word], width))
        table[longer] = len(table) + 2  # 256 and 257 are no words
        word = bytes([value])
        if len(table) + 2 == 4094:
            codes.append((256, 12))
            table = {bytes([value]): value for value in range(256)}
    bits = "".join(
        f"{code:0{width}b}" for code, width in [*codes, (table[word], max((len(table) + 2).bit_length(), 9))]
    )
    bits += f"{257:0{max((len(table) + 3).bit_length(), 9)}b}"
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")


def lzw_tiff(path, array, **options):
    """A 16-bit TIFF file as tifffile lays it out, its strips or tiles compressed and put behind."""
    imwrite(path, array, **options)
    with TiffFile(path) as file:
        page, order = file.pages.first, file.byteorder
        offset, counts, compression = (
            page.tags[tag] for tag in (324 if page.is_tiled else 273, 325 if page.is_tiled else 279, 259)
        )
        pieces = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    content = bytearray(path.read_bytes())
    places, sizes = [], []
    for start, count in pieces:
        packed = lzw(bytes(content[start : start + count]))
        places.append(len(content))
        sizes.append(len(packed))
        content += packed
    for tag, values in ((offset, places), (counts, sizes)):
        struct.pack_into(f"{order}{len(values)}{'H' if tag.dtype == 3 else 'I'}", content, tag.valueoffset, *values)
    struct.pack_into(f"{order}H", content, compression.valueoffset, 5)
    path.write_bytes(content)


LAYOUTS = [
    {"rowsperstrip": 16},
    {"tile": (16, 32)},
    {"planarconfig": "separate", "rowsperstrip": 30},
    {"rowsperstrip": 16, "byteorder": ">"},
]


@pytest.mark.parametrize("options", LAYOUTS)
@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize("write", [lzw_tiff, imwrite])
def test_deep_tiff_files_of_every_layout_and_compression(tmp_path, options, channels, write):
    array = np.arange(40 * 50, dtype=np.uint16).reshape(40, 50, 1) * 13 + np.arange(channels, dtype=np.uint16) * 99
    stored = array.transpose(2, 0, 1) if "planarconfig" in options else array
    alpha = {"extrasamples": ["unassalpha"]} if channels != 3 else {}
    if write is imwrite:
        options = {**options, "compression": "zlib", "predictor": True}
    write(tmp_path / "a.tif", stored, photometric="rgb" if channels > 2 else "minisblack", **options, **alpha)
    colour = array[..., :3] if channels > 2 else np.repeat(array[..., :1], 3, 2)
    torch.testing.assert_close(read_image(tmp_path / "a.tif"), expected(colour, 65535), rtol=0, atol=0)
    kind = image_kind(tmp_path / "a.tif")
    assert kind.bits == 16
    assert (kind.alpha is None) if channels == 3 else np.array_equal(kind.alpha, array[..., -1])
    assert image_size(tmp_path / "a.tif") == (40, 50)


def test_colours_that_alpha_has_multiplied_are_divided_again(tmp_path):
    array = np.array([[[40000, 20000, 100, 65535], [20000, 10000, 50, 32768], [0, 0, 0, 0]]], dtype=np.uint16)
    imwrite(tmp_path / "a.tif", array, photometric="rgb", extrasamples=["assocalpha"])
    colours = np.array([[[40000, 20000, 100], [39999, 20000, 100], [0, 0, 0]]])
    torch.testing.assert_close(read_image(tmp_path / "a.tif"), expected(colours, 65535), rtol=0, atol=1e-9)


def test_deep_grey_with_alpha(tmp_path):
    array = np.random.default_rng(0).integers(0, 65536, (5, 7, 2), dtype=np.uint16)
    png16(tmp_path / "a.png", array, colour=4)
    torch.testing.assert_close(read_image(tmp_path / "a.png"), expected(np.repeat(array[..., :1], 3, 2), 65535))
    assert image_kind(tmp_path / "a.png").bits == 16
    assert np.array_equal(image_kind(tmp_path / "a.png").alpha, array[..., 1])


def test_depths_between_8_and_16_bits_are_refused_rather_than_read_dark(tmp_path):
    tags = {256: 4, 257: 1, 258: 12, 259: 1, 262: 1, 273: 122, 277: 1, 278: 1, 279: 6}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    (tmp_path / "a.tif").write_bytes(b"II*\0" + struct.pack("<IH", 8, 9) + entries + bytes(4) + bytes(6))
    with pytest.raises(ImageFileError, match="expected 8 or 16 bits per value, but it holds 12"):
        read_image(tmp_path / "a.tif")


def test_memory_is_the_limit_and_not_the_number_of_pixels(tmp_path, monkeypatch):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    for suffix in ("jpg", "webp", "tif", "avif", "bmp"):
        Image.fromarray(RGB).save(tmp_path / f"a.{suffix}")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3)
    for path in tmp_path.iterdir():
        assert read_image(path).shape == (3, 5, 7)
        assert image_size(path) == (5, 7)
    assert Image.MAX_IMAGE_PIXELS == 3
    monkeypatch.setattr(decoding, "free_memory", lambda: 500)
    with pytest.raises(ImageFileError, match=r"a.png: 7 x 5 pixels take about 0.0 GB .* make the image smaller or cut"):
        read_image(tmp_path / "a.png")


def test_other_programs_are_never_started(tmp_path):
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    with pytest.raises(ImageFileError, match="cannot identify image file"):
        read_image(tmp_path / "a.png")


def scene(orientation=1):
    """What a phone writes."""
    exif = Image.Exif()
    exif[0x0112], exif[271] = orientation, "Camera"
    exif.get_ifd(0x8769).update({36867: "2026:05:01 12:00:00", 0x927C: b"secret", 0xA002: 7})
    exif.get_ifd(0x8825)[1] = "N"
    return exif.tobytes()


@pytest.mark.parametrize("suffix", ["jpg", "jfif", "jpe", "png", "webp", "tif", "avif", "heic"])
@pytest.mark.parametrize("orientation", [1, 2, 6])
def test_the_scene_is_kept_and_the_orientation_applied_once(tmp_path, suffix, orientation):
    if suffix == "heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    smooth = np.stack(np.broadcast_arrays(*np.ogrid[0:200:40j, 0:250:60j], 90), -1).astype(np.uint8)
    options = {"quality": -1, "chroma": 444} if suffix == "heic" else {"quality": 95, "dpi": (300, 150)}
    Image.fromarray(smooth).save(tmp_path / f"a.{suffix}", exif=scene(orientation), **options)
    upright = {1: smooth, 2: smooth[:, ::-1], 6: np.rot90(smooth, -1)}[orientation]
    blurry, kind = read_image(tmp_path / f"a.{suffix}"), image_kind(tmp_path / f"a.{suffix}")
    torch.testing.assert_close(blurry, expected(upright.copy()), rtol=0, atol=8 / 255)
    assert image_size(tmp_path / f"a.{suffix}") == blurry.shape[1:]
    for bits in (8, 16):
        write_image(blurry, tmp_path / "out.png", kind._replace(bits=bits))
        with Image.open(tmp_path / "out.png") as image:
            exif = image.getexif()
            assert (exif[271], exif.get_ifd(0x8825)[1]) == ("Camera", "N")
            assert exif.get_ifd(0x8769) == {36867: "2026:05:01 12:00:00"}
            assert 0x0112 not in exif
            if suffix in {"jpg", "png", "tif"}:
                assert image.info["dpi"] == pytest.approx((300, 150), abs=0.1)
        torch.testing.assert_close(read_image(tmp_path / "out.png"), blurry, rtol=0, atol=0.51 / 255)


def test_alpha_is_kept_at_its_depth(tmp_path):
    deep = np.random.default_rng(0).integers(0, 65536, (5, 7, 4), dtype=np.uint16)
    png16(tmp_path / "deep.png", deep, colour=6)
    Image.fromarray((deep >> 8).astype(np.uint8)).save(tmp_path / "shallow.webp", lossless=True, exact=True)
    for name, array in (("deep.png", deep), ("shallow.webp", deep >> 8)):
        write_image(read_image(tmp_path / name), tmp_path / "out.png", image_kind(tmp_path / name))
        assert np.array_equal(image_kind(tmp_path / "out.png").alpha, array[..., 3])
        assert torch.equal(read_image(tmp_path / "out.png"), read_image(tmp_path / name))


def test_sizes_are_read_from_headers(tmp_path, monkeypatch):
    png16(tmp_path / "late.png", RGB.astype(np.uint16), behind=scene(6).removeprefix(b"Exif\0\0"))
    for suffix in ("jpg", "png", "webp", "tif", "avif", "bmp"):
        Image.fromarray(RGB).save(tmp_path / f"a.{suffix}")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("it reads pixels"))
    monkeypatch.setattr("PIL.WebPImagePlugin.WebPImageFile.load", lambda self: pytest.fail("it reads pixels"))
    for path in tmp_path.iterdir():
        assert image_size(path) == ((7, 5) if path.stem == "late" else (5, 7))


def test_heic_files_name_the_extra(tmp_path, monkeypatch):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf" + bytes(40))
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    for read in (read_image, image_size, image_kind):
        with pytest.raises(BackendError, match=r"a.heic: HEIC files need pillow-heif: pip install 'reblurkit\[heic\]'"):
            read(tmp_path / "a.heic")
    with pytest.raises(ArgumentError, match="expected a suffix of"):
        write_image(expected(RGB), tmp_path / "b.heic")
