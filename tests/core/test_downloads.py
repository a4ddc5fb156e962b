"""Downloads from a server on loopback: the good case and every way to fail."""

from __future__ import annotations

import hashlib
import os
import socketserver
import threading
from contextlib import suppress

import pytest

from reblurkit.core import downloads
from reblurkit.core.downloads import RemoteFile
from reblurkit.core.file_locks import MARK
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


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_cache_that_holds_what_does_not_end(kind, loopback, hub_cache):
    remote = RemoteFile("http://127.0.0.1:1/a.pth", "0" * 64)
    remote.path().parent.mkdir(parents=True)
    os.mkfifo(remote.path()) if kind == "pipe" else os.symlink("/dev/zero", remote.path())
    with pytest.raises(DownloadError, match=f"a.pth cannot be written or read: it is a {kind}, not a file; pass"):
        remote.fetch("pass a file")


def test_a_cache_that_cannot_be_written(loopback, hub_cache):
    hub_cache.mkdir(parents=True, exist_ok=True)
    (hub_cache / "checkpoints").write_text("a file where the folder should be")
    with pytest.raises(DownloadError, match="cannot be written or read"):
        RemoteFile(loopback.serve("model.bin", CONTENT), SHA256).fetch("pass a file")


@pytest.fixture
def raw_server(monkeypatch):
    """Serve whatever bytes a function sends, and return the address of a file there."""
    monkeypatch.setenv("no_proxy", "*")
    servers = []

    def serve(send):
        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                self.request.recv(4096)
                with suppress(OSError):  # the other side has had enough
                    send(self.request)

        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}/model.bin"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1/model.bin",
        "file:///etc/passwd",
        "https:///model.bin",
        "https://example.org",
        "https://example.org/",
        "https://example.org/folder/",
        "https://example.org/a/..",
        "https://example.org/a/.",
        "https://example.org/model.pth?next=/",
        "http://[::1/model.bin",
        "http://127.0.0.1/mod\nel.bin",
        "http://127.0.0.1/mod\u00e9l.bin",
        "http://127.0.0.1/" + "a" * 300,
    ],
)
def test_what_is_no_address_of_a_file_is_refused_before_anything_is_touched(url, hub_cache):
    with pytest.raises(DownloadError, match=r"^an address must be https:// or http://.* but is [^\n]*$"):
        RemoteFile(url, SHA256).fetch("pass a file")
    assert not hub_cache.exists()


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:x/model.bin", "http://127.0.0.1/mo del.bin", "http://127.0.0.1:99999/m"]
)
def test_broken_addresses_are_one_line(url, hub_cache, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(DownloadError, match=r"^[^\n]*pass a file$"):
        RemoteFile(url, SHA256).fetch("pass a file")
    assert left_behind(hub_cache) == []


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc",
        b"HTTP/1.1 302 Found\r\nLocation: ftp://127.0.0.1/model.bin\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://[::1/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /model.bin\r\nContent-Length: 0\r\n\r\n",
    ],
    ids=[
        "nonsense",
        "status",
        "nothing",
        "headers",
        "long header",
        "chunks",
        "ftp",
        "file",
        "address",
        "round",
    ],
)
def test_broken_answers_leave_nothing_and_are_told(answer, raw_server, hub_cache):
    with pytest.raises(DownloadError, match=r"model.bin (cannot be downloaded|ended early)"):
        RemoteFile(raw_server(lambda connection: connection.sendall(answer)), SHA256).fetch("pass a file")
    assert left_behind(hub_cache) == []


def test_what_a_server_says_is_told_in_a_line(raw_server, hub_cache):
    answer = b"HTTP/1.1 503 " + b"so \x0b long " * 5000 + b"\r\n\r\n"
    with pytest.raises(DownloadError, match=r"^[^\n]{1,600}$"):
        RemoteFile(raw_server(lambda connection: connection.sendall(answer)), SHA256).fetch("pass a file")


@pytest.mark.parametrize("length", [b"abc", b"-5", b"9" * 5000, b""])
def test_a_length_that_makes_no_sense_is_not_believed(length, raw_server, hub_cache):
    answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: " + length + b"\r\n\r\n" + CONTENT
    file = RemoteFile(raw_server(lambda connection: connection.sendall(answer)), SHA256)
    assert file.fetch("pass a file").read_bytes() == CONTENT


@pytest.mark.parametrize("promised", [True, False])
def test_a_file_that_is_too_large_is_left(promised, raw_server, hub_cache, monkeypatch):
    monkeypatch.setattr(downloads, "_LARGEST", 1_000_000)
    header = b"Content-Length: %d\r\n" % len(CONTENT) if promised else b"Connection: close\r\n"

    def send(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + header + b"\r\n" + CONTENT)

    with pytest.raises(DownloadError, match="is larger than"):
        RemoteFile(raw_server(send), SHA256).fetch("pass a file")
    assert left_behind(hub_cache) == []


@pytest.mark.parametrize("start", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\n\r\n"], ids=["headers", "content"])
def test_a_server_that_sends_byte_by_byte_is_left(start, raw_server, hub_cache, monkeypatch):
    monkeypatch.setattr(downloads, "_PATIENCE", 0.3)
    gone = threading.Event()

    def send(connection):
        connection.sendall(start)
        while not gone.wait(0.02):
            connection.sendall(b"a")

    with pytest.raises(DownloadError, match=r"no answer in|bytes in"):
        RemoteFile(raw_server(send), SHA256).fetch("pass a file")
    gone.set()
    assert left_behind(hub_cache) == []


def test_several_at_once_are_safe_and_leave_one_file(loopback, hub_cache):
    file = RemoteFile(loopback.serve("model.bin", CONTENT), SHA256)
    paths = []
    threads = [threading.Thread(target=lambda: paths.append(file.fetch("pass a file"))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {path.read_bytes() for path in paths} == {CONTENT}
    assert len(paths) == 6
    assert left_behind(hub_cache) == ["model.bin"]


def test_what_a_killed_download_left_is_swept(loopback, hub_cache):
    (hub_cache / "checkpoints").mkdir(parents=True)
    (hub_cache / "checkpoints" / f"{MARK}0123.bin").write_bytes(CONTENT[:100])
    (hub_cache / "checkpoints" / "model.pth.abc.partial").write_bytes(b"torch.hub's own")
    RemoteFile(loopback.serve("model.bin", CONTENT), SHA256).fetch("pass a file")
    assert left_behind(hub_cache) == ["model.bin", "model.pth.abc.partial"]
