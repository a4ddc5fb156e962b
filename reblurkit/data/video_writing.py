"""Video files out: deblurred frames with the times and the sound of the video that they come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reblurkit.core.files import whole_file
from reblurkit.data.images import read_image, to_uint8
from reblurkit.data.video_reading import VideoFile, open_video
from reblurkit.errors import ImageFileError

if TYPE_CHECKING:
    import av

_IN_MP4 = frozenset({"aac", "ac3", "alac", "eac3", "flac", "mp3", "opus"})  # sound; Matroska takes any
_QUALITY = {"crf": "14"}  # of H.264, from 0 to 51: hardly any loss to be seen
_BT709, _LIMITED = 1, 1  # codes of ITU-T H.273


def video_suffix(source: VideoFile) -> str:
    """``.mp4``, or ``.mkv`` where the sound of a video is of a kind that MP4 does not take."""
    with open_video(source.path) as container:
        codecs = {stream.codec_context.codec.canonical_name for stream in container.streams.audio}
    return ".mp4" if codecs <= _IN_MP4 else ".mkv"


def write_video(frames: Sequence[Path], source: VideoFile, target: Path) -> None:
    """Write frames as H.264 with the time of each frame, and the sound, of the video that they were made of.

    Args:
        frames: Image files, one for each frame of ``source``.
        source: The video.
        target: A name that ends in :func:`video_suffix`; appears when the file is whole.

    Raises:
        ImageFileError: If the video cannot be written, or a frame not read.
    """
    import av

    try:
        with (
            whole_file(target) as partial,
            open_video(source.path) as original,
            av.open(str(partial.absolute()), "w") as written,
        ):
            pictures = original.streams.video[0]
            stream = written.add_stream("libx264", rate=pictures.average_rate or 25, options=_QUALITY)
            stream.height, stream.width = source.size
            stream.pix_fmt = "yuv444p" if stream.height % 2 or stream.width % 2 else "yuv420p"
            stream.codec_context.time_base = source.time_base
            context = stream.codec_context
            context.colorspace = context.color_primaries = context.color_trc = _BT709
            context.color_range = _LIMITED
            sound = {track.index: written.add_stream_from_template(track) for track in original.streams.audio}
            packets = _sound(original, sound)
            waiting = next(packets, None)
            for path, stamp in zip(frames, source.stamps, strict=True):
                image = av.VideoFrame.from_ndarray(to_uint8(read_image(path)), format="rgb24")
                image = image.reformat(format=stream.pix_fmt, dst_colorspace="ITU709", dst_color_range="MPEG")
                image.pts, image.time_base = stamp, source.time_base
                while waiting is not None and _seconds(waiting) <= stamp * source.time_base:
                    written.mux(waiting)
                    waiting = next(packets, None)
                written.mux(stream.encode(image))
            written.mux(stream.encode(None))
            while waiting is not None:
                written.mux(waiting)
                waiting = next(packets, None)
    except (av.error.FFmpegError, OSError) as error:
        raise ImageFileError(f"cannot write {target}: {error}") from error


def _sound(original: av.container.InputContainer, tracks: Mapping[int, av.AudioStream]) -> Iterator[av.Packet[Any]]:
    """The packets of the sound, in order, for the streams of the new file."""
    if not tracks:
        return
    for packet in original.demux(*original.streams.audio):
        if packet.dts is not None:
            packet.stream = tracks[packet.stream.index]
            yield packet


def _seconds(packet: av.Packet[Any]) -> float:
    return float((packet.dts or 0) * packet.time_base)
