"""Whether a server answers is known within seconds, whatever the network does."""

from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from vae_sweep.base import network
from vae_sweep.base.network import why_unreachable


class Answering(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response(200 if self.path == "/there" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def address() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_server_that_answers_is_reachable(address: str) -> None:
    assert why_unreachable(f"{address}/there") is None
    assert "Not Found" in str(why_unreachable(f"{address}/absent"))


def test_a_silent_server_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "PROBE_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/weights.pth"
        started = time.monotonic()
        assert why_unreachable(url)
        assert time.monotonic() - started < 3
    assert "refused" in str(why_unreachable(url))


def test_a_name_look_up_without_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where packets vanish: the look-up has no time limit of its own."""
    monkeypatch.setattr(network, "PROBE_SECONDS", 0.3)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(2))
    started = time.monotonic()
    assert "no answer within" in str(why_unreachable("http://nowhere.invalid/file"))
    assert time.monotonic() - started < 1.5
