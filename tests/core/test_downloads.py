"""Downloads from a server on loopback: the good case and every way to fail."""

from __future__ import annotations

import hashlib

import pytest

from reblurkit.core.downloads import RemoteFile
from reblurkit.errors import ChecksumError, DownloadError, TruncationError

CONTENT = bytes(range(256)) * 9000  # more than one chunk
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def left_behind(cache):
    return sorted(path.name for path in cache.rglob("*") if path.is_file())


def test_a_file_is_downloaded_once(loopback, hub_cache):
    file = RemoteFile(loopback.serve("model.bin", CONTENT), SHA256)
    path = file.fetch("pass a file")
    assert path == hub_cache / "checkpoints" / "model.bin"
    assert path.read_bytes() == CONTENT
    assert file.fetch("pass a file") == path
    assert loopback.requests == ["/model.bin"]
    assert left_behind(hub_cache) == ["model.bin"]


def test_a_wrong_checksum_leaves_nothing(loopback, hub_cache):
    file = RemoteFile(loopback.serve("model.bin", b"something else"), SHA256)
    with pytest.raises(ChecksumError, match=rf"model.bin sent another file .* not {SHA256}; pass a file"):
        file.fetch("pass a file")
    assert left_behind(hub_cache) == []


def test_a_truncated_download_leaves_nothing(loopback, hub_cache):
    file = RemoteFile(loopback.serve("model.bin", CONTENT, send=len(CONTENT) - 1), SHA256)
    with pytest.raises(TruncationError, match=r"model.bin ended .*; try again, or put the file at .*, or pass a file"):
        file.fetch("pass a file")
    assert left_behind(hub_cache) == []


def test_a_retry_after_a_truncated_download(loopback, hub_cache):
    file = RemoteFile(loopback.serve("model.bin", CONTENT, send=1000), SHA256)
    with pytest.raises(TruncationError):
        file.fetch("pass a file")
    loopback.serve("model.bin", CONTENT)
    assert file.fetch("pass a file").read_bytes() == CONTENT


def test_no_network(closed_port, hub_cache):
    file = RemoteFile(f"http://127.0.0.1:{closed_port}/model.bin", SHA256)
    with pytest.raises(
        DownloadError, match=r"cannot be downloaded .*refused.*; put the file at .*model.bin, or pass a"
    ):
        file.fetch("pass a file")
    assert left_behind(hub_cache) == []


def test_a_server_without_the_file(loopback, hub_cache):
    loopback.serve("other.bin", CONTENT)
    with pytest.raises(DownloadError, match="404"):
        RemoteFile(f"{loopback.url}/model.bin", SHA256).fetch("pass a file")


def test_a_damaged_copy_in_the_cache_is_not_used(loopback, hub_cache):
    file = RemoteFile(loopback.serve("model.bin", CONTENT), SHA256)
    file.fetch("pass a file").write_bytes(CONTENT[:-1])
    with pytest.raises(ChecksumError, match="delete it or pass a file"):
        file.fetch("pass a file")
    file.path().unlink()
    assert file.fetch("pass a file").read_bytes() == CONTENT


def test_a_cache_that_cannot_be_written(loopback, hub_cache):
    hub_cache.mkdir(parents=True, exist_ok=True)
    (hub_cache / "checkpoints").write_text("a file where the folder should be")
    with pytest.raises(DownloadError, match="cannot be written or read"):
        RemoteFile(loopback.serve("model.bin", CONTENT), SHA256).fetch("pass a file")
