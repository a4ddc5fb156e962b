"""Files that are downloaded once, checked, and kept in the cache of ``torch.hub``."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException, IncompleteRead
from pathlib import Path
from urllib.request import urlopen

import torch

from reblurkit.core.files import whole_file
from reblurkit.errors import ChecksumError, DownloadError, TruncationError

_CHUNK = 2**20  # bytes
_TIMEOUT = 60.0  # seconds without a sign of life


@dataclass(frozen=True)
class RemoteFile:
    """A file on the network that must have one known content.

    Args:
        url: Where it is; the last part of the address is its name in the cache.
        sha256: SHA-256 of its content, 64 hexadecimal digits; or the first 8 of them, where the publisher gives no
            more than these.

    Example:
        >>> RemoteFile("https://example.org/model.pth", "0" * 64).path().name
        'model.pth'
    """

    url: str
    sha256: str

    def path(self) -> Path:
        """Its place in the cache, the folder ``checkpoints`` of ``torch.hub.get_dir()``; there or not."""
        return Path(torch.hub.get_dir()) / "checkpoints" / self.url.rpartition("/")[2]

    def fetch(self, otherwise: str) -> Path:
        """The path of the local copy, downloaded if it is not there yet.

        The file appears under its name only when it is whole and has the right content, so that interrupted and
        concurrent downloads leave nothing half done. A copy that was there before is checked too.

        Args:
            otherwise: What else the caller's user can do, for the messages: ``"pass ..."``.

        Raises:
            DownloadError: If the address cannot be reached, or the cache cannot be written.
            TruncationError: If the connection ends early.
            ChecksumError: If the content is not the expected one.
        """
        path = self.path()
        try:
            if path.exists():
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
        with whole_file(path) as part, part.open("xb") as file:
            for chunk in self._chunks(f"put the file at {path}, or {otherwise}"):
                digest.update(chunk)
                file.write(chunk)
            self._check(digest.hexdigest(), f"{self.url} sent another file than expected", otherwise)

    def _chunks(self, otherwise: str) -> Iterator[bytes]:
        """The content as it comes; the errors of the network, and of nothing else, become ours here."""
        received = 0
        try:
            with urlopen(self.url, timeout=_TIMEOUT) as response:
                length = int(response.headers["Content-Length"] or 0)
                while chunk := response.read(_CHUNK):
                    received += len(chunk)
                    yield chunk
        except IncompleteRead as error:
            raise TruncationError(f"{self.url} ended early; try again, or {otherwise}") from error
        except (OSError, HTTPException) as error:
            raise DownloadError(f"{self.url} cannot be downloaded ({error}); {otherwise}") from error
        if received < length:
            raise TruncationError(f"{self.url} ended after {received} of {length} bytes; try again, or {otherwise}")

    def _check(self, found: str, what: str, otherwise: str) -> None:
        if not found.startswith(self.sha256):
            wanted = self.sha256 if len(self.sha256) == 64 else f"{self.sha256}..."
            raise ChecksumError(f"{what}: its SHA-256 is {found}, not {wanted}; {otherwise}")
