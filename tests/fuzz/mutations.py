"""What damage, accidental or meant, does to the bytes of a file."""

from __future__ import annotations

import io
import random
import zipfile
import zlib

_SIZES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF)
_WORDS = ("*a", "&a [*a, *a]", "null", "1e999", "-1", "9" * 30, "[]", "{}", "os.system", "class_path: os.system", "\t")


def mutated(content: bytes, kind: str, random_: random.Random, others: list[bytes]) -> bytes:
    """A file with one to four changes; half of those with checksums get right ones, so that readers go on.

    Args:
        content: The file.
        kind: Its format.
        random_: What decides.
        others: Files of the same format, to take pieces from.
    """
    repaired = random_.random() < 0.5
    if repaired and zipfile.is_zipfile(io.BytesIO(content)):
        return _in_archive(content, random_, others)
    for _ in range(random_.choice((1, 1, 2, 4))):
        text = kind in ("config", "metrics") and random_.random() < 0.6
        content = _word(content, random_) if text else _bytes(content, random_, others)
    return _with_checksums(content) if repaired and content.startswith(b"\x89PNG") else content


def _bytes(content: bytes, random_: random.Random, others: list[bytes]) -> bytes:
    data = bytearray(content or b"\0")
    # headers are at the beginning, and are what readers believe
    place = random_.randrange(min(len(data), 256) if random_.random() < 0.6 else len(data))
    length = random_.choice((1, 2, 4, 16, 64))
    match random_.randrange(8):
        case 0:
            data[place] ^= 1 << random_.randrange(8)
        case 1:
            data[place] = random_.randrange(256)
        case 2:
            width = random_.choice((1, 2, 4, 8))
            number = random_.choice(_SIZES) % (1 << (8 * width))
            data[place : place + width] = number.to_bytes(width, random_.choice(("little", "big")))
        case 3:
            del data[place:]
        case 4:
            del data[place : place + length]
        case 5:
            data[place:place] = data[place : place + length]
        case 6:
            data[place:place] = random_.randbytes(length)
        case 7:
            other = random_.choice(others)
            start = random_.randrange(len(other))
            data[place : place + length] = other[start : start + length]
    return bytes(data)


def _word(content: bytes, random_: random.Random) -> bytes:
    words = content.decode(errors="replace").split(" ")
    place = random_.randrange(len(words))
    words[place] = random_.choice((*_WORDS, random_.choice(words), words[place] * 2, ""))
    return " ".join(words).encode(errors="replace")


def _with_checksums(content: bytes) -> bytes:
    """A PNG file whose chunks have right checksums, as far as there are chunks."""
    data, place = bytearray(content), 8
    while place + 12 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 4], "big")
        if end + 4 > len(data):
            break
        data[end : end + 4] = zlib.crc32(data[place + 4 : end]).to_bytes(4, "big")
        place = end + 4
    return bytes(data)


def _in_archive(content: bytes, random_: random.Random, others: list[bytes]) -> bytes:
    """An archive one of whose members is changed."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    # what says what the others are
    chosen = [name for name, _ in members if name.endswith(("data.pkl", ".npy"))]
    name = random_.choice(chosen if random_.random() < 0.7 else [name for name, _ in members])
    new = io.BytesIO()
    with zipfile.ZipFile(new, "w", random_.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for each, data in members:
            archive.writestr(each, _bytes(data, random_, others) if each == name else data)
    return new.getvalue()
