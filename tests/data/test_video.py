from __future__ import annotations

import builtins
from fractions import Fraction

import numpy as np
import pytest
import torch

from reblurkit.blur import average_frames
from reblurkit.data import VideoFolder, write_image
from reblurkit.data.images import ImageKind
from reblurkit.data.sampling import Draw
from reblurkit.data.video import find_videos
from reblurkit.data.video_reading import VideoFile
from reblurkit.data.video_writing import video_suffix, write_video
from reblurkit.errors import ArgumentError, BackendError, DatasetNotFoundError, ImageFileError, PairingError, ShapeError


def levels(index, size=(6, 8)):
    """A frame that tells its index: every value is exact in 8 bits."""
    generator = torch.Generator().manual_seed(index)
    return torch.randint(0, 256, (3, *size), generator=generator) / 255


def folder_of_frames(folder, count, **options):
    for index in range(count):
        write_image(levels(index, **options), folder / f"{index:03}.png")


def test_clips_of_every_folder(tmp_path):
    folder_of_frames(tmp_path / "b" / "left", 5)
    folder_of_frames(tmp_path / "a", 4)
    folder_of_frames(tmp_path / "short", 2)
    videos = VideoFolder(tmp_path)
    assert [videos[index]["name"] for index in range(len(videos))] == [
        "a/001",
        "a/002",
        "b/left/001",
        "b/left/002",
        "b/left/003",
    ]
    item = videos[3]
    assert set(item) == {"frames", "blurry", "name"}
    assert torch.equal(item["frames"], torch.stack([levels(index) for index in (1, 2, 3)]))
    assert torch.equal(item["blurry"], levels(2))
    assert [VideoFolder(tmp_path, stride=2)[index]["name"] for index in range(3)] == [
        "a/001",
        "b/left/001",
        "b/left/003",
    ]
    assert len(VideoFolder(tmp_path, frames=1)) == 11
    assert len(VideoFolder(tmp_path, split="b")) == 3


@pytest.mark.parametrize("spacing", [None, 2, 5])
@pytest.mark.parametrize("gamma", [None, 2.2])
def test_blur_from_sharp_frames(tmp_path, spacing, gamma):
    folder_of_frames(tmp_path / "v", 16)
    videos = VideoFolder(tmp_path, frames=3, window=5, spacing=spacing, gamma=gamma, stride=2)
    step = spacing or 5
    assert len(videos) == len(range(0, (16 - 5) // step + 1 - 3 + 1, 2))
    start = 2 if len(videos) > 1 else 0
    item = videos[len(videos) - 1 if len(videos) == 1 else 1]
    expected = [
        average_frames(torch.stack([levels(k * step + j) for j in range(5)])[None], gamma)[0]
        for k in range(start, start + 3)
    ]
    torch.testing.assert_close(item["frames"], torch.stack(expected))
    centre = (start + 1) * step + 2
    assert torch.equal(item["sharp"], levels(centre))
    torch.testing.assert_close(item["blurry"], expected[1])
    assert item["name"] == f"v/{centre:03}"


def test_data_sets_bring_their_truth(tmp_path):
    for video in ("GOPR1", "GOPR2"):
        for kind, first in (("blur", 0), ("sharp", 50)):
            for index in range(4):
                write_image(levels(first + index), tmp_path / "train" / video / kind / f"{index:06}.png")
    videos = VideoFolder(tmp_path, "gopro", split="train", blur="blur")
    assert len(videos) == 4
    item = videos[3]
    assert item["name"] == "train/GOPR2/blur/000002"
    assert torch.equal(item["frames"], torch.stack([levels(index) for index in (1, 2, 3)]))
    assert torch.equal(item["sharp"], levels(52))


def test_crops_are_the_same_in_all_frames_and_a_function_of_the_draw(tmp_path):
    for index in range(3):
        write_image(torch.arange(20.0).expand(3, 10, 20) / 255 + index / 5, tmp_path / "v" / f"{index}.png")
    videos = VideoFolder(tmp_path, crop=5, augment=True)
    first, again, later = (videos[draw]["frames"] for draw in (0, Draw(0), Draw(0, 1)))
    assert first.shape == (3, 3, 5, 5)
    assert torch.equal(first, again)
    differences = {videos[Draw(0, epoch)]["frames"][0, 0, 0, 0].item() for epoch in range(9)}
    assert len(differences) > 3
    torch.testing.assert_close(first[1] - first[0], torch.full((3, 5, 5), 51 / 255))
    torch.testing.assert_close(later[2] - later[1], torch.full((3, 5, 5), 51 / 255))


def test_what_is_not_read_is_named(tmp_path):
    folder_of_frames(tmp_path / "v", 3)
    (tmp_path / "v" / "a.CR3").touch()
    (tmp_path / "clip.wmv").touch()
    with pytest.warns(UserWarning, match=r"are not read: .*clip\.wmv, .*a\.CR3; convert them"):
        assert len(VideoFolder(tmp_path)) == 1


@pytest.fixture
def video_file(tmp_path):
    """Eleven frames of one grey level each, with key frames four apart and frames that refer to later ones."""
    av = pytest.importorskip("av")
    path = tmp_path / "holiday.mp4"
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size, stream.max_b_frames = 48, 32, "yuv420p", 4, 2
        for index in range(11):
            image = np.full((32, 48, 3), 20 * index, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def encoded(path, codec, images, stamps=None, *, pixels="yuv444p", matrix=None, layout="rgb24", **context):
    """A video of images ``(H, W, 3)``, shown at stamps in thousandths of a second."""
    av = pytest.importorskip("av")
    options = {"libx265": {"x265-params": "log-level=none", "crf": "1"}, "libx264": {"crf": "1"}}
    with av.open(path, "w", options={"movflags": "+faststart"} if path.suffix == ".mp4" else {}) as container:
        stream = container.add_stream(codec, rate=25, options=options.get(codec, {}))
        stream.height, stream.width, stream.pix_fmt, stream.gop_size = *images[0].shape[:2], pixels, 12
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        if stamps is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for index, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format=layout)
            frame = frame.reformat(format=pixels, dst_colorspace=matrix, dst_color_range="MPEG")
            for name in {"color_trc", "color_primaries"} & context.keys():
                setattr(frame, name, context[name])
            if stamps is not None:
                frame.pts, frame.time_base = stamps[index], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def greys(count, size=(32, 48)):
    return [np.full((*size, 3), 20 + 9 * index, np.uint8) for index in range(count)]


KINDS = {".mts": "libx264", ".m2ts": "libx264", ".ts": "mpeg2video", ".3gp": "mpeg4", ".mpg": "mpeg2video",
         ".mpeg": "mpeg2video", ".MOV": "libx264", ".webm": "libvpx-vp9"}  # fmt: skip


@pytest.mark.parametrize("suffix", KINDS)
def test_files_of_cameras_and_phones(tmp_path, suffix):
    path = encoded(tmp_path / f"a{suffix}", KINDS[suffix], greys(20), pixels="yuv420p", max_b_frames=2)
    [video] = find_videos(tmp_path)
    assert len(video) == 20
    assert video.damage is None
    for start in (0, 7):
        grey = 255 * video.read(start, start + 3).mean((1, 2, 3))
        torch.testing.assert_close(grey, 20.0 + 9 * torch.arange(start, start + 3), rtol=0, atol=4.4)
    assert len(VideoFile("a", path)) == 20


@pytest.mark.parametrize(
    ("size", "matrix", "code"),
    [((32, 48), "ITU601", 2), ((32, 48), "ITU709", 1), ((720, 1280), "ITU709", 2), ((720, 1280), "ITU601", 5)],
)
def test_colours_are_those_that_the_stream_says_or_players_suppose(tmp_path, size, matrix, code):
    image = np.broadcast_to(np.array([200, 60, 30], np.uint8), (*size, 3))
    path = encoded(tmp_path / "a.mkv", "libx264", [image], matrix=matrix, colorspace=code, color_range=1)
    colour = 255 * VideoFile("a", path).read(0, 1).mean((0, 2, 3))
    torch.testing.assert_close(colour, torch.tensor([200.0, 60.0, 30.0]), rtol=0, atol=1.5)


def test_ten_bits_are_kept(tmp_path):
    ramp = np.broadcast_to(np.linspace(20000, 24000, 48)[None, :, None], (32, 48, 3)).astype(np.uint16)
    path = encoded(
        tmp_path / "a.mkv", "libx265", [ramp], pixels="yuv444p10le", layout="rgb48le", matrix="ITU709", colorspace=1
    )
    video = VideoFile("a", path)
    assert video.kind(0) == ImageKind(16)
    levels = 65535 * video.read(0, 1)[0].mean((0, 1))
    torch.testing.assert_close(levels, torch.linspace(20000, 24000, 48), rtol=0, atol=100)
    assert len(set((levels / 257).tolist())) > 40, "more than the 16 levels of 8 bits"


@pytest.mark.parametrize(
    ("curve", "primaries", "name"), [(16, 9, "HDR \\(PQ"), (18, 9, "HDR \\(HLG"), (1, 9, "BT.2020")]
)
def test_hdr_is_refused_with_advice(tmp_path, curve, primaries, name):
    deep = [np.full((32, 48, 3), 49000, np.uint16)]
    path = encoded(tmp_path / "a.mkv", "libx265", deep, pixels="yuv420p10le", layout="rgb48le", colorspace=9,
                   color_trc=curve, color_primaries=primaries)  # fmt: skip
    with pytest.raises(
        ImageFileError, match=rf"its colours are {name}.*convert them first: ffmpeg -i a.mkv -vf zscale"
    ):
        VideoFile("a", path)


@pytest.mark.parametrize(
    ("suffix", "codec"), [("mp4", "libx264"), ("mkv", "libx264"), ("avi", "mpeg4"), ("webm", "libvpx-vp9")]
)
def test_a_video_that_is_cut_off_says_so(tmp_path, suffix, codec):
    noise = np.random.default_rng(0).integers(0, 256, (40, 96, 128, 3), dtype=np.uint8)
    path = encoded(tmp_path / f"a.{suffix}", codec, list(noise), pixels="yuv420p")
    assert VideoFile("a", path).damage is None
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    with pytest.warns(UserWarning, match=r"a\.\w+ has [\d.]+ of [\d.]+ (frames|seconds); it is damaged or cut off"):
        [video] = find_videos(tmp_path)
    assert 10 < len(video) < 30


def test_files_of_one_name_keep_their_suffixes(tmp_path):
    for name in ("a.mp4", "a.mkv", "b.mp4"):
        encoded(tmp_path / name, "libx264", greys(3))
    folder_of_frames(tmp_path / "b", 3)
    assert sorted(video.name for video in find_videos(tmp_path)) == ["a.mkv", "a.mp4", "b", "b.mp4"]


def test_times_may_be_uneven(tmp_path):
    stamps = [0, 40, 300, 310, 900]
    video = VideoFile("a", encoded(tmp_path / "a.mkv", "libx264", greys(5), stamps))
    assert [round(1000 * stamp * video.time_base) for stamp in video.stamps] == stamps
    grey = 255 * video.read(1, 4).mean((1, 2, 3))
    torch.testing.assert_close(grey, torch.tensor([29.0, 38.0, 47.0]), rtol=0, atol=2)


def test_video_files(video_file):
    videos = VideoFolder(video_file.parent)
    assert len(videos) == 9
    for index in (0, 3, 4, 8):
        item = videos[index]
        assert item["frames"].shape == (3, 3, 32, 48)
        grey = 255 * item["frames"].mean((1, 2, 3))
        torch.testing.assert_close(grey, 20.0 * torch.arange(index, index + 3), rtol=0, atol=3)
        assert item["name"] == f"holiday/{index + 1:06}"
    assert len(VideoFolder(video_file, frames=1)) == 11
    averaged = VideoFolder(video_file, window=3, frames=1)
    assert len(averaged) == 3
    torch.testing.assert_close(255 * averaged[1]["frames"].mean(), torch.tensor(80.0), rtol=0, atol=3)


def test_video_without_pyav(video_file, monkeypatch):
    original = builtins.__import__

    def without(name, *rest):
        if name == "av":
            raise ImportError(name)
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(BackendError, match=r"pip install 'reblurkit\[video\]', or extract"):
        VideoFolder(video_file)


@pytest.mark.parametrize("content", [b"", b"no video at all", None])
def test_video_that_cannot_be_read(video_file, content):
    video_file.write_bytes(video_file.read_bytes()[:800] if content is None else content)
    with pytest.raises(ImageFileError, match=r"cannot read video .*holiday\.mp4"):
        VideoFolder(video_file)[0]


def test_a_video_filmed_upright_is_shown_upright(tmp_path):
    """The matrix that phones write into `tkhd` (ISO 14496-12, 8.3.2): to be shown a quarter turn clockwise."""
    image = np.zeros((32, 48, 3), np.uint8)
    image[:8] = 255
    path = encoded(tmp_path / "phone.mp4", "mpeg4", [image] * 3, pixels="yuv420p")
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 4 + 20 + 8 + 8
    unit, zero = (1 << 16).to_bytes(4, "big"), bytes(4)
    assert content[place : place + 16] == unit + zero * 3
    minus = (-(1 << 16)).to_bytes(4, "big", signed=True)
    content[place : place + 32] = zero + unit + zero + minus + zero + zero + (32 << 16).to_bytes(4, "big") + zero
    path.write_bytes(content)
    videos = VideoFolder(path)
    assert videos.videos[0].size == (48, 32)
    frame = videos[0]["blurry"]
    expected = torch.from_numpy(np.rot90(image, -1).copy()).permute(2, 0, 1) / 255
    torch.testing.assert_close(frame, expected, rtol=0, atol=0.05)


def test_frames_that_differ_in_their_suffix_only(tmp_path):
    folder_of_frames(tmp_path, 3)
    first = sorted(tmp_path.rglob("*.png"))[0]
    first.with_suffix(".bmp").write_bytes(first.read_bytes())
    with pytest.raises(PairingError, match="have the same name; which is the frame of the video"):
        VideoFolder(tmp_path)


def test_real_sequences(shared_data):
    assert len(VideoFolder(shared_data / "sequences" / "selfdeblur_real")) == 5
    tram = VideoFolder(shared_data / "sequences" / "tram", window=5, spacing=5)
    assert len(tram) == 4
    assert tram[0]["frames"].shape == (3, 3, 180, 320)
    pytest.importorskip("av")
    film = VideoFolder(shared_data / "sequences" / "bigbuckbunny.mp4")
    assert len(film) == 130
    assert film[129]["frames"].shape == (3, 3, 720, 1280)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": 0}, "`frames` must be a whole number"),
        ({"stride": 1.5}, "`stride` must be a whole number"),
        ({"window": 4}, "`window` must be odd"),
        ({"window": 3, "layout": "gopro"}, "goes with layout='frames'"),
        ({"spacing": 3}, "give `window` with them"),
        ({"gamma": 2.2}, "give `window` with them"),
        ({"augment": True}, "give `crop`"),
        ({"blur": "blur"}, "name its layout"),
        ({"split": ".."}, "`split` must name a folder below the root"),
        ({"layout": "goprow"}, "unknown layout 'goprow'"),
    ],
)
def test_wrong_arguments(tmp_path, options, message):
    folder_of_frames(tmp_path, 3)
    with pytest.raises(ArgumentError, match=message):
        VideoFolder(tmp_path, **options)


def test_wrong_folders(tmp_path):
    with pytest.raises(DatasetNotFoundError, match="no folder of video"):
        VideoFolder(tmp_path / "none")
    with pytest.raises(DatasetNotFoundError, match=r"no video in .* looked for folders of image files"):
        VideoFolder(tmp_path)
    folder_of_frames(tmp_path / "v", 2)
    with pytest.raises(DatasetNotFoundError, match=r"no clip of 3 frames .* has 2 blurry frames; frames=2 takes pairs"):
        VideoFolder(tmp_path)
    with pytest.raises(ShapeError, match="8 x 6 pixels, fewer than the crop of 7 x 7"):
        VideoFolder(tmp_path, frames=2, crop=7)
    write_image(levels(9, (6, 9)), tmp_path / "v" / "z.png")
    with pytest.raises(ShapeError, match=r"must have one size, but .*z\.png has 9 x 6 pixels"):
        VideoFolder(tmp_path)
    (tmp_path / "v" / "z.png").write_bytes(b"")
    with pytest.raises(ImageFileError, match=r"z\.png"):
        VideoFolder(tmp_path)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".avi"])
def test_titles_need_not_be_utf_8(tmp_path, suffix):
    av = pytest.importorskip("av")
    path = tmp_path / f"film{suffix}"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "CAFEZQ film"
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        for image in greys(6):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    content = path.read_bytes()
    assert b"CAFEZQ" in content
    path.write_bytes(content.replace(b"CAFEZQ", b"CAF\xc9 Q"))
    film = VideoFile("film", path)
    assert film.read(0, 6).shape == (6, 3, 32, 48)
    targets = [tmp_path / f"{index}.png" for index in range(6)]
    for target in targets:
        write_image(torch.rand(3, 32, 48), target)
    write_video(targets, film, tmp_path / f"out{video_suffix(film)}")


def test_frames_of_one_time_and_one_that_never_comes_cost_no_more_than_others(tmp_path, monkeypatch):
    pytest.importorskip("av")
    path = encoded(tmp_path / "film.mkv", "mjpeg", greys(20), range(0, 800, 40), pixels="yuvj420p")
    film, tries = VideoFile("film", path), []
    decode = VideoFile._decode
    monkeypatch.setattr(VideoFile, "_decode", lambda self, *words: (tries.append(words), decode(self, *words))[1])
    assert len(film._keys) == 20
    film.stamps = sorted([*film.stamps, 601])
    with pytest.raises(ImageFileError, match="only 2 can be decoded"):
        film.read(15, 18)
    assert len(tries) == 4
    tries.clear()
    for start in range(0, 15, 5):
        film.read(start, start + 5)
    assert len(tries) == 3


def test_an_avi_that_does_not_tell_the_order_of_its_frames_is_refused(tmp_path):
    av = pytest.importorskip("av")
    if "libx264" not in av.codecs_available:
        pytest.skip("PyAV has no encoder of H.264")
    for suffix in ("mp4", "avi"):
        with av.open(str(tmp_path / f"a.{suffix}"), "w") as container:
            stream = container.add_stream("libx264", 25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            stream.codec_context.max_b_frames = 2
            for level in range(0, 250, 10):
                frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    (video,) = find_videos(tmp_path / "a.mp4")
    levels = video.read(0, len(video)).mean((1, 2, 3))
    assert (levels.diff() > 0).all()
    (video,) = find_videos(tmp_path / "a.avi")
    with pytest.raises(ImageFileError, match=r"AVI does not tell that order; convert it first: ffmpeg -i a\.avi"):
        video.read(0, len(video))
