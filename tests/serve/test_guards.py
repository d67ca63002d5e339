"""What is refused before any route sees it."""

import urllib.request
from pathlib import Path

import pytest

from .conftest import Server, StartServer


def status(server: Server, host: str, path: str = "/v1/models") -> int:
    request = urllib.request.Request(server.url + path, headers={"Host": host, "Authorization": "Bearer secret"})
    return server.fetch(request, 60)[0]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "[::2]", "[", ""])
def test_pages_that_let_their_name_point_here_are_refused(server: Server, host: str):
    assert status(server, host) == status(server, host, "/") == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:8000"])
def test_this_machine_has_several_names(server: Server, host: str):
    assert status(server, host) == 200


def test_with_a_key_any_name_will_do(start_server: StartServer, packaged_models: Path):
    server = start_server([packaged_models / "shakespeare"], api_key="secret")
    assert status(server, "models.example") == 200
