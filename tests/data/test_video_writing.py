from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from reblurkit.data import write_image
from reblurkit.data.video_reading import VideoFile
from reblurkit.data.video_writing import video_suffix, write_video
from reblurkit.errors import ImageFileError

av = pytest.importorskip("av")
STAMPS = [0, 40, 80, 200, 240, 400, 440, 500, 900, 940]  # in thousandths of a second


def clip(path, sound=None, size=(48, 64)):
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4" if path.suffix == ".avi" else "libx264", rate=25)
        (stream.height, stream.width), stream.pix_fmt = size, "yuv444p" if size[1] % 2 else "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        track = container.add_stream(sound, rate=16000) if sound else None
        for index, stamp in enumerate(STAMPS):
            frame = av.VideoFrame.from_ndarray(np.full((*size, 3), 20 + 10 * index, np.uint8), format="rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if track is not None:
            samples = track.codec_context.frame_size or 1024
            for index in range(14):
                noise = np.random.default_rng(index).integers(-3000, 3000, (1, samples)).astype(np.int16)
                frame = av.AudioFrame.from_ndarray(noise, format="s16", layout="mono")
                frame.sample_rate, frame.pts = 16000, index * samples
                container.mux(track.encode(frame))
            container.mux(track.encode(None))
    return VideoFile(path.stem, path)


def times(path):
    with av.open(path) as container:
        packets = container.demux(container.streams.video[0])
        return sorted(float(packet.pts * packet.time_base) for packet in packets if packet.pts is not None)


def heard(path):
    """The samples of the sound."""
    with av.open(path) as container:
        return np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)


@pytest.mark.parametrize(
    ("suffix", "sound", "expected"),
    [(".mp4", "aac", ".mp4"), (".mkv", "flac", ".mp4"), (".ts", "mp2", ".mkv"), (".avi", "mp2", ".mkv"),
     (".mov", "pcm_s16le", ".mkv"), (".mp4", None, ".mp4")],
)  # fmt: skip
def test_times_and_sound_are_kept(tmp_path, suffix, sound, expected):
    source = clip(tmp_path / f"a{suffix}", sound)
    frames = source.read(0, len(source))
    paths = [tmp_path / f"{index}.png" for index in range(len(frames))]
    for frame, path in zip(frames, paths, strict=True):
        write_image(frame, path)
    assert video_suffix(source) == expected
    target = tmp_path / f"out{expected}"
    write_video(paths, source, target)
    assert times(target) == pytest.approx(times(source.path), abs=1e-3)
    written = VideoFile("out", target)
    torch.testing.assert_close(written.read(0, len(written)), frames, rtol=0, atol=3 / 255)
    if sound is not None:
        assert np.array_equal(heard(target), heard(source.path))


def test_odd_sizes_and_what_cannot_be_written(tmp_path):
    source = clip(tmp_path / "a.mkv", size=(33, 41))
    paths = [tmp_path / f"{index}.png" for index in range(len(source))]
    for frame, path in zip(source.read(0, len(source)), paths, strict=True):
        write_image(frame, path)
    write_video(paths, source, tmp_path / "new" / "out.mp4")
    assert VideoFile("out", tmp_path / "new" / "out.mp4").size == (33, 41)
    (tmp_path / "file").touch()
    with pytest.raises(ImageFileError, match=r"cannot write .*file/out\.mp4"):
        write_video(paths, source, tmp_path / "file" / "out.mp4")
