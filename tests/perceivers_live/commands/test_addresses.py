"""Before anything is opened: hosts, allowed addresses and ports of OSC and the page."""

from __future__ import annotations

import dataclasses
import socket

import pytest

from perceivers_live.commands.addresses import check_addresses
from perceivers_live.controls.settings import OscSettings, PageSettings, Settings
from perceivers_live.network import ListenError


@pytest.mark.parametrize("name", ["osc", "page"])
@pytest.mark.parametrize(
    ("host", "allow", "error"),
    [
        ("127.0.0.1", "", None),
        ("0.0.0.0", "192.0.2.7", None),
        ("0.0.0.0", "", "beyond loopback"),
        ("0.0.0.0", "stage", "allowed are addresses and networks"),
        ("no.such.host.invalid", "192.0.2.7", "choose another"),
    ],
)
def test_wrong_address_is_an_error_unless_it_is_switched_off(name: str, host: str, allow: str, error: str | None) -> None:
    kind = {"osc": OscSettings, "page": PageSettings}[name]
    settings = dataclasses.replace(Settings(), **{name: kind(host=host, allow=allow)})
    if error is None:
        check_addresses(settings, osc_port=0, page_port=0)
    else:
        with pytest.raises(ListenError, match=error):
            check_addresses(settings, osc_port=0, page_port=0)
    off = dataclasses.replace(Settings(), **{name: kind(host=host, allow=allow, enabled=False)})
    check_addresses(off, osc_port=0, page_port=0)


@pytest.mark.parametrize(("name", "kind"), [("osc", socket.SOCK_DGRAM), ("page", socket.SOCK_STREAM)])
def test_taken_port_is_an_error(name: str, kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_INET, kind) as other:
        other.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            other.listen()
        ports = {"osc_port": 0, "page_port": 0}
        check_addresses(Settings(), **ports)
        with pytest.raises(ListenError, match="choose another"):
            check_addresses(Settings(), **{**ports, f"{name}_port": other.getsockname()[1]})
