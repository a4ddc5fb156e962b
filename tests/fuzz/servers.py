"""Servers that send anything but a file, as recipes for the process that downloads from them."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import random
import shutil
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from reblurkit.core import downloads
from reblurkit.core.downloads import RemoteFile
from reblurkit.errors import ReblurkitError
from reblurkit.models import UNet, load_weights
from tests.fuzz import hostile
from tests.fuzz.names import command

_LARGEST, _PATIENCE = 300_000, 0.4  # bytes and seconds, in place of gigabytes and a minute
_ADDRESSES = (
    *["http://127.0.0.1:{port}/model.pth"] * 12, "ftp://127.0.0.1:{port}/a", "file:///etc/passwd",
    "http://127.0.0.1:{port}/a/..", "http://127.0.0.1:{port}/..%2f..%2fa", "http://127.0.0.1:{port}/%00",
    "http://127.0.0.1:{port}/a%0d%0aX: 1", "http://127.0.0.1:{port}/..\\a", "http://127.0.0.1:{port}/~",
    "http://127.0.0.1:{port}/a?b=/../../c", "http://127.0.0.1:{port}/a b", "http://a:b@127.0.0.1:{port}/a",
    "http://127.0.0.1:{port}/$(touch${IFS}{canary})", "http://127.0.0.1:{port}/a;touch {canary};",
    "http://127.0.0.1:{port}/`touch {canary}`/a", "http://127.0.0.1:{port}/\x1b[2Ja", "http://127.0.0.1:{port}/a\nb",
    "http://127.0.0.1:{port}/\u202ea", "data:,a", "http://[/a",
    "HTTP://127.0.0.1:{port}/A", "http:/127.0.0.1:{port}/a", "http://127.0.0.1:0/a", "http://127.1:{port}/a",
    "http://127.0.0.1:{port}/.reblurkit-00000000000000000000000000000000.pth",
)  # fmt: skip
_STATUSES = (
    "HTTP/1.1 200 OK", "HTTP/1.1 200 OK", "HTTP/1.1 200 OK", "HTTP/1.1 200 OK", "HTTP/1.0 200 OK", "HTTP/9.9 200",
    "HTTP/1.1 204 No", "HTTP/1.1 206 Part", "HTTP/1.1 304 Not", "HTTP/1.1 401 No", "HTTP/1.1 404 \x1b[2J\x1b]0;x\x07",
    "HTTP/1.1 500 \xff\u202e\r\x08", "HTTP/1.1 404 a\x85\x0b\x9b31mb",
    "HTTP/1.1 99", "HTTP/1.1 1e3 OK", "HTTP/1.1 -200 OK", "HTTP/1.1", "", "ICY 200",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK", "\0" * 100, "a" * 70_000,
    "HTTP/1.1 302 Found", "HTTP/1.1 301 Moved", "HTTP/1.1 307 There", "HTTP/1.1 407 Proxy",
    "HTTP/1.1 404 " + "{0.__class__}" * 9, "HTTP/1.1 503 " + "a" * 60_000,
)  # fmt: skip
_HEADERS = (
    "Content-Length: {length}", "Content-Length: {length}", "Content-Length: 5", "Content-Length: 99999999999999",
    "Content-Length: 299999", "Content-Length: -1", "Content-Length: 1e9", "Content-Length: " + "9" * 5000,
    "Content-Length: 5\r\nContent-Length: 7", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked, gzip",
    "Content-Encoding: gzip", "Connection: close", "Connection: upgrade\r\nUpgrade: h2c", "no colon", ": empty",
    " folded: yes", "X: \x1b[31m", "X: \0\xff", "X: " + "a" * 70_000, "X: 1\r\n" * 200 + "Y: 2", "Refresh: 0",
    "Content-Disposition: attachment; filename=\"../../../planted.py\"", "Set-Cookie: a=" + "b" * 9000,
    "Location: file:///etc/passwd", "Location: ftp://127.0.0.1:{port}/a", "Location: /model.pth", "Location: ",
    "Location: http://127.0.0.1:{port}/other", "Location: //127.0.0.1:{port}/..", "Location: data:,abc",
    "Location: http://[::1/", "Location: http://127.0.0.1:99999/", "Location: \x1b[2J", "Location: \xff\xfe",
    "Location: https://127.0.0.1:{port}/model.pth", "Location: javascript:alert(1)", "Location: " + "/a" * 5000,
    "Location: http://127.0.0.1:{port}/a\0b", "Location: gopher://127.0.0.1:{port}/", "Location: http:///",
)  # fmt: skip
_BODIES = (
    "content", "content", "content", "twice", "half", "less one", "nothing", "zeros", "gzip", "page", "chunks",
    "chunk", "bad chunk", "endless chunk", "pickle", "bomb",
)  # fmt: skip
_ENDS = ("close", "close", "close", "reset", "hang", "endless", "drip")


def recipe(random_: random.Random) -> bytes:
    """What is asked for, by how many at once, and what comes."""
    headers = [random_.choice(_HEADERS) for _ in range(random_.choice((1, 1, 2, 3)))]
    made = {
        "address": random_.choice(_ADDRESSES),
        "status": random_.choice(_STATUSES) if random_.random() < 0.6 else "HTTP/1.1 200 OK",
        "headers": headers,
        "body": random_.choice(_BODIES),
        "end": random_.choice(_ENDS),
        "cut": random_.random() if random_.random() < 0.1 else 1,
        "checksum": random_.choice(("right", "right", "wrong", "short")),
        "at_once": random_.choice((1, 1, 1, 4)),
        "by": random_.choice(("fetch", "weights", "command")),
    }
    return json.dumps(made).encode()


def read(path: Path) -> None:
    """Download as a recipe says.

    Raises:
        ReblurkitError: If it is refused.
        AssertionError: If another content is accepted, anything but the file is left in or beside the cache, a message
            has several lines, or something reaches the terminal as it is.
    """
    made = json.loads(path.read_bytes())
    canary, cache = path.parent.absolute() / "canary", path.parent / "cache"
    body = _body(made["body"], canary)
    with _limits(cache), _serving(made, body) as port:
        url = made["address"].replace("{port}", str(port)).replace("{canary}", str(canary))
        digest = hashlib.sha256(body).hexdigest()
        checksum = {"right": digest, "wrong": "0" * 64, "short": digest[:8]}[made["checksum"]]
        before = {each.name for each in path.parent.iterdir()}
        results: list[Any] = []
        if made["by"] == "command":
            _deblur(path.parent / "deblurred", f"{url}#sha256={checksum}", results)
        else:
            threads = [
                threading.Thread(target=_fetch, args=(made["by"], RemoteFile(url, checksum), results))
                for _ in range(made["at_once"])
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        left = [each for each in cache.rglob("*") if each.is_file()]
        errors = [each for each in results if isinstance(each, BaseException)]
        if len(errors) < len(results) and (len(left) != 1 or left[0].read_bytes() != body):
            raise AssertionError(f"accepted, but the cache holds {left}")
        if len(errors) == len(results) and any(each.read_bytes() != body for each in left):
            raise AssertionError(f"refused, but the cache holds {left}")
        if new := {each.name for each in path.parent.iterdir()} - before - {"canary", "cache", "deblurred"}:
            raise AssertionError(f"written beside the cache: {new}")
    for error in sorted(errors, key=lambda error: isinstance(error, ReblurkitError)):
        raise error


def _fetch(by: str, file: RemoteFile, results: list[Any]) -> None:
    try:
        results.append(file.fetch("pass a file") if by == "fetch" else load_weights(UNet(**hostile.SMALL), file))
    except BaseException as error:
        if len(str(error).splitlines()) > 1 or len(str(error)) > 3000:
            error = AssertionError(f"a message of {len(str(error))} letters or several lines: {str(error)[:200]!r}")
        results.append(error)


def _deblur(place: Path, address: str, results: list[Any]) -> None:
    """As a user does it who has copied an address."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    Image.new("RGB", (16, 16)).save(place / "photo.png")
    by = ("--model", "unet", "--network-args", json.dumps(hostile.SMALL), "--weights", address, "--device", "cpu")
    try:
        command("deblur", str(place / "photo.png"), "--output", str(place / "out"), *by)
        results.append(place / "out" / "photo.png")
    except BaseException as error:
        results.append(error)


@contextlib.contextmanager
def _limits(cache: Path) -> Iterator[None]:
    """An empty cache, no proxies, and little patience."""
    shutil.rmtree(cache, ignore_errors=True)
    before = torch.hub._hub_dir, downloads._PATIENCE, downloads._LARGEST, os.environ.get("no_proxy")
    torch.hub.set_dir(cache)
    downloads._PATIENCE, downloads._LARGEST, os.environ["no_proxy"] = _PATIENCE, _LARGEST, "*"
    try:
        yield
    finally:
        torch.hub._hub_dir, downloads._PATIENCE, downloads._LARGEST = before[:3]
        if before[3] is None:
            del os.environ["no_proxy"]
        else:
            os.environ["no_proxy"] = before[3]


def _body(kind: str, canary: Path) -> bytes:
    """A file of weights or what passes for one."""
    file = io.BytesIO()
    match kind:
        case "nothing":
            return b""
        case "zeros":
            return bytes(200_000)
        case "page":
            return b"<!DOCTYPE html><script>alert(1)</script>"
        case "gzip":
            return gzip.compress(bytes(50_000_000))
        case "chunks" | "chunk" | "bad chunk" | "endless chunk":
            sizes = {"chunks": b"3", "chunk": b"ffffffff", "bad chunk": b"-5;x", "endless chunk": b"f" * 70_000}
            return sizes[kind] + b"\r\nabc\r\n0\r\n\r\n"
        case "pickle":
            torch.save({"state_dict": hostile.Call(open, str(canary), "w")}, file)
        case "bomb":
            return hostile.zipped({"archive/data.pkl": bytes(10**8), "archive/version": b"3"})
        case _:
            torch.save(hostile.network_state(), file)
    content = file.getvalue()
    return {"twice": content * 2, "half": content[: len(content) // 2], "less one": content[:-1]}.get(kind, content)


@contextlib.contextmanager
def _serving(made: dict[str, Any], body: bytes) -> Iterator[int]:
    gone = threading.Event()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):  # the other side has had enough
                self.request.settimeout(2)
                self.request.recv(4096)
                _send(self.request, made, body, self.server.server_address[1], gone)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads, block_on_close, request_queue_size = True, False, 20

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            gone.set()
            server.shutdown()


def _send(connection: socket.socket, made: dict[str, Any], body: bytes, port: int, gone: threading.Event) -> None:
    headers = "".join(f"{header}\r\n" for header in made["headers"])
    head = f"{made['status']}\r\n{headers}\r\n".replace("{port}", str(port)).replace("{length}", str(len(body)))
    answer = head.encode("latin-1", "replace") + body
    connection.sendall(answer[: int(len(answer) * made["cut"])])
    match made["end"]:
        case "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        case "hang":
            gone.wait(5)
        case "endless":
            while not gone.is_set():
                connection.sendall(bytes(10_000))
                time.sleep(0.001)
        case "drip":
            while not gone.wait(0.02):
                connection.sendall(b"a")
