"""What all tests share: a fixed seed, and small networks with the awkward layers of real ones."""

from __future__ import annotations

import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torch import nn

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


@pytest.fixture
def shared_data() -> Path:
    """Real images beside the checkout; tests that use them are extras, the suite is complete without."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real images are not at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture
def hub_cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of ``torch.hub``, so that no test sees or changes the user's."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    return tmp_path / "torch" / "hub"


@pytest.fixture
def user_folder(tmp_path, monkeypatch) -> Path:
    """The folder that a user works in, whose modules can be imported, each test's anew."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for module in ("mine", "own"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    return tmp_path


class Loopback:
    """A server on 127.0.0.1 that serves bytes by name, whole or cut off, and notes what was asked for."""

    def __init__(self):
        self.files: dict[str, tuple[bytes, int]] = {}
        self.requests: list[str] = []
        loopback = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                loopback.requests.append(self.path)
                if self.path not in loopback.files:
                    self.send_error(404)
                    return
                content, send = loopback.files[self.path]
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[:send])

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def serve(self, name, content, send=None):
        """Serve ``content``, of which only the first ``send`` bytes come, and return its address."""
        self.files[f"/{name}"] = (content, len(content) if send is None else send)
        return f"{self.url}/{name}"


@pytest.fixture
def loopback(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    loopback = Loopback()
    thread = threading.Thread(target=loopback.server.serve_forever, args=(0.01,))
    thread.start()
    yield loopback
    loopback.server.shutdown()
    thread.join()
    loopback.server.server_close()


@pytest.fixture
def closed_port(monkeypatch) -> int:
    """A port on 127.0.0.1 that refuses connections: what no network looks like."""
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class PlainNet(nn.Module):
    def __init__(self, width: int = 6):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 3, 3, padding=1))

    def forward(self, image):
        return image + self.body(image)


class BatchNormNet(PlainNet):
    def __init__(self, width: int = 6):
        super().__init__(width)
        self.body.insert(1, nn.BatchNorm2d(width))


class DropoutNet(PlainNet):
    def __init__(self, width: int = 6):
        super().__init__(width)
        self.body.insert(2, nn.Dropout(0.3))


class MultiScaleNet(PlainNet):
    def forward(self, image):
        full = super().forward(image)
        return [nn.functional.avg_pool2d(full, 4), nn.functional.avg_pool2d(full, 2), full]


class TinyFlow(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(6, 2, 3, padding=1)

    def forward(self, source, target):
        return self.conv(torch.cat((source, target), 1))
