"""Video files, frame by frame: time stamps, colours, what of a damaged one is left."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reblurkit.core.special_files import check_regular
from reblurkit.data.augmentation import WHOLE, Place
from reblurkit.data.frames import Frames
from reblurkit.data.images import ImageKind
from reblurkit.errors import BackendError, ImageFileError

if TYPE_CHECKING:
    import av

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mts", ".m2ts", ".ts", ".3gp", ".mpg", ".mpeg"}
)
_UNSPECIFIED, _BT2020 = 2, 9  # codes of ITU-T H.273
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,avi,matroska,webm,mpegts,mpeg,mpegvideo,h264,hevc"  # FFmpeg's names
_CUT = "it is damaged or cut off"
_KEYS = 4  # key frames from which decoding is tried, the latest first
_LATE = 32  # frames that may come too early, in files whose times are out of order; H.264 reorders 16


class VideoFile(Frames):
    """A video file of any kind that PyAV decodes (extra ``[video]``); its first video stream.

    Frames are found by their time stamps, and only the stretch from a key frame before the first one wanted is decoded.
    They are turned as the file says they are to be shown. More than 8 bits a value are kept. A stream that does not say
    what its colours mean is taken as players take it: BT.709 from 720 lines on, BT.601 below.

    Attributes:
        path: The file.
        stamps: Time stamp of each frame, in units of ``time_base`` seconds.
        time_base: The unit.

    Raises:
        BackendError: If PyAV is not installed.
        ImageFileError: If the file cannot be decoded, or holds HDR or BT.2020 colours.
    """

    def __init__(self, name: str, path: Path) -> None:
        try:
            import av
        except ImportError:
            raise BackendError(
                f"reading the video file {path} needs PyAV: pip install 'reblurkit[video]', or extract its frames to a "
                "folder of image files"
            ) from None
        self._av = av
        self.name = name
        self.path = path
        try:
            with open_video(path) as container:
                stream = container.streams.video[0]
                packets = [packet for packet in container.demux(stream) if packet.pts is not None]
                self.stamps = sorted({int(packet.pts or 0) for packet in packets})
                self.time_base = Fraction(stream.time_base or 0)
                self._keys = [
                    (int(packet.pts or 0), int(packet.dts if packet.dts is not None else packet.pts or 0))
                    for packet in packets
                    if packet.is_keyframe
                ]
                self.damage = self._lost(container)
                container.seek(0)
                first = next(container.decode(stream))
                self._refuse_hdr(stream.codec_context)
                # a phone films upright pictures lying on their side, and says so
                self._quarter_turns = round(first.rotation / 90) % 4
                self.size = (first.width, first.height) if self._quarter_turns % 2 else (first.height, first.width)
                self._bits = 16 if max(component.bits for component in first.format.components) > 8 else 8
        except IndexError as error:
            raise ImageFileError(f"cannot read video {path}: it has no video stream") from error
        except (av.error.FFmpegError, OSError, StopIteration) as error:
            raise ImageFileError(f"cannot read video {path}: {error}") from error
        if not self.stamps:
            raise ImageFileError(f"cannot read video {path}: it has no frames")

    def __len__(self) -> int:
        return len(self.stamps)

    def read(self, start: int, stop: int, place: Place = WHOLE) -> Tensor:
        """Frames ``start`` to ``stop - 1``, or a place in them, ``(T, 3, H, W)`` in [0, 1]."""
        wanted = self.stamps[start:stop]
        before = [decoding for shown, decoding in self._keys if shown <= wanted[0]]
        frames: dict[int, NDArray[np.generic]] = {}
        # Frames shown right after a key frame may refer to the one before it, of which a file may have lost some.
        for key in before[: -_KEYS - 1 : -1]:
            frames = self._decode(key, wanted)
            if len(frames) == len(wanted):
                levels = np.stack([frames[stamp][place] for stamp in wanted]).astype(np.float32)
                levels /= 2**self._bits - 1
                return torch.from_numpy(levels).permute(0, 3, 1, 2).contiguous()
        raise ImageFileError(
            f"cannot read video {self.path}: of frames {start} to {stop - 1} only {len(frames)} can be decoded"
        )

    def _decode(self, key: int, wanted: list[int]) -> dict[int, NDArray[np.generic]]:
        """Decode from a key frame on; what is found of the wanted frames, by time stamp."""
        frames: dict[int, NDArray[np.generic]] = {}
        missing = set(wanted)
        late, last = 0, None
        try:
            with open_video(self.path) as container:
                stream = container.streams.video[0]
                container.seek(key, stream=stream, backward=True)
                for frame in container.decode(stream):
                    if container.format.name == "avi" and not _follows(frame.pts, last):
                        raise ImageFileError(
                            f"cannot read video {self.path}: its frames are not stored in the order in which they are "
                            "shown, and AVI does not tell that order; convert it first: "
                            f"ffmpeg -i {self.path.name} -crf 12 {self.path.stem}.mp4"
                        )
                    last = frame.pts
                    if frame.pts in missing:
                        frames[frame.pts] = np.rot90(self._levels(frame), self._quarter_turns)
                        missing.remove(frame.pts)
                        if frame.is_corrupt and self.damage is None:
                            self.damage = f"frame {self.stamps.index(frame.pts)} of video {self.path} is damaged"
                    # They come in the order of their times: what is late does not come at all.
                    late += frame.pts is not None and frame.pts > wanted[-1]
                    if not missing or late > _LATE:
                        break
        except (self._av.error.FFmpegError, OSError) as error:
            raise ImageFileError(f"cannot read video {self.path}: {error}") from error
        return frames

    def _levels(self, frame: av.VideoFrame) -> NDArray[np.generic]:
        is_silent = frame.colorspace == _UNSPECIFIED
        meaning = ("ITU709" if frame.height >= 720 else "ITU601") if is_silent else None
        converted = frame.reformat(format="rgb48le" if self._bits == 16 else "rgb24", src_colorspace=meaning)
        return np.asarray(converted.to_ndarray())

    def _lost(self, container: av.container.InputContainer) -> str | None:
        """Whether frames are missing that the file's header promises."""
        stream, found = container.streams.video[0], len(self.stamps)
        if stream.frames:
            return f"video {self.path} has {found} of {stream.frames} frames; {_CUT}" if found < stream.frames else None
        length = re.fullmatch(r"(\d+):(\d+):(\d+\.\d+)", stream.metadata.get("DURATION", ""))
        if found < 2 or length is None:
            return None
        promised = int(length[1]) * 3600 + int(length[2]) * 60 + float(length[3])
        there = float((self.stamps[-1] - self.stamps[0]) * self.time_base)
        interval = there / (found - 1)
        if promised - there > 3 * interval:
            return f"video {self.path} has {there + interval:.2f} of {promised:.2f} seconds; {_CUT}"
        return None

    def _refuse_hdr(self, codec: av.VideoCodecContext) -> None:
        curve = {16: "PQ", 18: "HLG"}.get(codec.color_trc)
        if curve is None and codec.color_primaries != _BT2020:
            return
        raise ImageFileError(
            f"cannot read video {self.path}: its colours are {f'HDR ({curve})' if curve else 'BT.2020'}, which would "
            f"come out wrong; convert them first: ffmpeg -i {self.path.name} -vf zscale=t=linear:npl=203,"
            "format=gbrpf32le,zscale=p=bt709,tonemap=hable,zscale=t=bt709:m=bt709:r=tv,format=yuv420p sdr.mp4"
        )

    def kind(self, index: int) -> ImageKind:
        """Bits of a value."""
        return ImageKind(self._bits)

    def frame_name(self, index: int) -> str:
        """The frame's number, from 0."""
        return f"{index:06}"


@contextmanager
def open_video(path: Path) -> Iterator[av.container.InputContainer]:
    """Open a video file: a file in any case, though its name may look like an address.

    Containers alone are opened, not playlists, which name other files and addresses.
    """
    import av

    check_regular(path)
    options = {"protocol_whitelist": "file", "format_whitelist": _CONTAINERS}
    with av.open(str(path.absolute()), options=options, metadata_errors="replace") as container:
        yield container


def _follows(stamp: int | None, last: int | None) -> bool:
    return stamp is None or last is None or stamp > last
