"""Files that are downloaded once, checked, and kept in the cache of ``torch.hub``."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse, IncompleteRead
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    UnknownHandler,
)

import torch

from reblurkit.core.files import whole_file
from reblurkit.core.special_files import check_regular
from reblurkit.errors import ChecksumError, DownloadError, TruncationError

_CHUNK = 2**20  # bytes
_PATIENCE = 60.0  # seconds for an answer, and in which something must come
_SLOWEST = 1000  # bytes a second, on the mean of so long
_LARGEST = 4 * 2**30  # bytes, several times what the largest published weights of this field have
_TOLD = 200  # letters
_NAME = re.compile(r"(?!\.{1,2}$)[^\x00-\x1f\x7f/\\]{1,200}")


@dataclass(frozen=True)
class RemoteFile:
    """A file on the network that must have one known content.

    Args:
        url: Where it is, ``https://`` or ``http://``; the last part of the address is its name in the cache.
        sha256: SHA-256 of its content, 64 hexadecimal digits; or the first 8 of them, where the publisher gives no
            more than these.

    Example:
        >>> RemoteFile("https://example.org/model.pth", "0" * 64).path().name
        'model.pth'
    """

    url: str
    sha256: str

    def path(self) -> Path:
        """Its place in the cache, the folder ``checkpoints`` of ``torch.hub.get_dir()``; there or not.

        Raises:
            DownloadError: If the address is none of the web, or names no file.
        """
        name = self.url.rpartition("/")[2]
        try:
            parts = urlsplit(self.url)
            known = parts.scheme in ("http", "https") and bool(parts.hostname) and bool(parts.path.strip("/"))
        except ValueError:  # brackets, ports
            known = False
        if not known or not self.url.isascii() or not _NAME.fullmatch(name):
            raise DownloadError(
                f"an address must be https:// or http://, a server and a path that ends in a file's name, but is "
                f"{self.url!r}"
            )
        return Path(torch.hub.get_dir()) / "checkpoints" / name

    def fetch(self, otherwise: str) -> Path:
        """The path of the local copy, downloaded if it is not there yet.

        The file appears under its name only when it is whole and has the right content, so that interrupted and
        concurrent downloads leave nothing half done. A copy that was there before is checked too. A server that sends
        more than 4 GiB, or in a minute nearly nothing, is left.

        Args:
            otherwise: What else the caller's user can do, for the messages: ``"pass ..."``.

        Raises:
            DownloadError: If the address is wrong or cannot be reached, the server sends too much or too slowly, or the
                cache cannot be written.
            TruncationError: If the connection ends early.
            ChecksumError: If the content is not the expected one.
        """
        path = self.path()
        try:
            if path.exists():
                check_regular(path)
                with path.open("rb") as file:
                    found = hashlib.file_digest(file, "sha256").hexdigest()
                self._check(found, f"{path} is not the file of {self.url}", f"delete it or {otherwise}")
            else:
                self._download(path, otherwise)
        except OSError as error:
            raise DownloadError(f"{path} cannot be written or read: {error}; {otherwise}") from error
        return path

    def _download(self, path: Path, otherwise: str) -> None:
        digest = hashlib.sha256()
        with whole_file(path, sync=True) as part, part.open("wb") as file:
            for chunk in self._chunks(f"put the file at {path}, or {otherwise}"):
                digest.update(chunk)
                file.write(chunk)
            self._check(digest.hexdigest(), f"{self.url} sent another file than expected", otherwise)

    def _chunks(self, otherwise: str) -> Iterator[bytes]:
        """The content as it comes; the errors of the network, and of nothing else, become ours here."""
        received = 0
        try:
            with closing(_answer(self.url)) as response:
                length = response.length or 0  # of a header that makes no sense, http.client makes None
                since, before = time.monotonic(), 0
                while received <= _LARGEST >= length and (chunk := response.read1(_CHUNK)):
                    received += len(chunk)
                    yield chunk
                    if (passed := time.monotonic() - since) > _PATIENCE:
                        if received - before < _SLOWEST * passed:
                            raise TimeoutError(f"{received - before} bytes in {passed:.0f} seconds")
                        since, before = time.monotonic(), received
        except IncompleteRead as error:
            raise TruncationError(f"{self.url} ended early; try again, or {otherwise}") from error
        except (OSError, HTTPException, ValueError) as error:
            raise DownloadError(f"{self.url} cannot be downloaded ({_reason(error)}); {otherwise}") from error
        if max(received, length) > _LARGEST:
            raise DownloadError(
                f"{self.url} is larger than {_LARGEST / 2**30:g} GiB and is not downloaded; {otherwise}"
            )
        if received < length:
            raise TruncationError(f"{self.url} ended after {received} of {length} bytes; try again, or {otherwise}")

    def _check(self, found: str, what: str, otherwise: str) -> None:
        if not found.startswith(self.sha256):
            wanted = self.sha256 if len(self.sha256) == 64 else f"{self.sha256}..."
            raise ChecksumError(f"{what}: its SHA-256 is {found}, not {wanted}; {otherwise}")


def _reason(error: Exception) -> str:
    """What went wrong, in words that may be the server's, of which a line is enough."""
    text = " ".join(str(error).split())
    return text if len(text) <= _TOLD else f"{text[:_TOLD]}..."


def _answer(url: str) -> HTTPResponse:
    """A server's answer. One that sends its headers byte by byte would keep ``urllib`` for ever: hence the thread."""
    answers: list[HTTPResponse | Exception] = []

    def ask() -> None:
        try:
            answers.append(_web().open(url, timeout=_PATIENCE))
        except Exception as error:  # raised where it was asked for
            answers.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    if not answers:
        raise TimeoutError(f"no answer in {_PATIENCE:.0f} seconds")
    if isinstance(answers[0], HTTPError):
        answers[0].close()
    if isinstance(answers[0], Exception):
        raise answers[0]
    return answers[0]


def _web() -> OpenerDirector:
    """HTTP and HTTPS, through the user's proxies; also a redirection leads to nothing else."""
    web = OpenerDirector()
    for handler in (
        ProxyHandler,
        UnknownHandler,
        HTTPHandler,
        HTTPSHandler,
        HTTPDefaultErrorHandler,
        HTTPRedirectHandler,
        HTTPErrorProcessor,
    ):
        web.add_handler(handler())
    return web
