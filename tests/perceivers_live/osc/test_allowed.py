"""Only allowed machines may send OSC from beyond loopback."""

import socket
import threading
from contextlib import closing

import pytest
from pythonosc.osc_message_builder import build_msg

from perceivers_live.controls.registry import Controls
from perceivers_live.network import ListenError, sender_filter
from perceivers_live.osc.server import OscServer
from tests.perceivers_live.osc.client import Client, beyond_loopback


def test_senders_beyond_loopback_are_ignored(server: OscServer, surface: Client, controls: Controls) -> None:
    outside = beyond_loopback()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        try:
            sender.bind((outside, 0))
            sender.sendto(build_msg("/perceivers/density", 1.0).dgram, ("127.0.0.1", server.port))
        except OSError:
            pytest.skip("this system sends nothing to loopback from outside")
    surface.all()
    assert controls.get("density") == 0.0


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "::ffff:192.0.2.1", "fe80::1%lo"])
def test_listening_beyond_loopback_requires_allowed_senders(host: str) -> None:
    with pytest.raises(ListenError, match="beyond loopback") as refused:
        sender_filter(host, " , ")
    assert str(refused.value).isprintable()


def test_only_allowed_senders_are_accepted_beyond_loopback() -> None:
    is_allowed = sender_filter("0.0.0.0", "192.0.2.7, 198.51.100.0/24,,2001:db8::/32")
    for sender in (
        "192.0.2.7",
        "198.51.100.255",
        "2001:db8:1::5",
        "127.0.0.1",
        "127.8.8.8",
        "::1",
        "::ffff:192.0.2.7",
        "::ffff:127.0.0.1",
    ):
        assert is_allowed(sender)
    for sender in ("192.0.2.8", "198.51.101.0", "2001:db9::1", "0.0.0.0", "::", "::ffff:192.0.2.8", "fe80::1%eth0"):
        assert not is_allowed(sender)


def test_loopback_server_accepts_only_loopback_whatever_is_allowed() -> None:
    is_allowed = sender_filter("127.0.0.1", "0.0.0.0/0")
    assert is_allowed("127.0.0.1")
    assert not is_allowed("192.0.2.7")


@pytest.mark.parametrize("allow", ["everybody", "192.0.2.0/33", "192.0.2", "192.0.2.1;192.0.2.2", "a\nb", "1" * 500, "-1"])
def test_allowed_senders_must_be_addresses_or_networks(controls: Controls, allow: str) -> None:
    before = threading.active_count()
    for host in ("127.0.0.1", "0.0.0.0"):
        with pytest.raises(ListenError, match="allowed are addresses") as refused:
            OscServer(controls, {}, host, 0, allow=f"192.0.2.1,{allow}")
        assert str(refused.value).isprintable()
    assert threading.active_count() == before


def test_server_on_all_addresses_accepts_only_allowed_senders(controls: Controls) -> None:
    outside = beyond_loopback()
    for allow, density in (("192.0.2.7", 0.0), (f"192.0.2.7, {outside}", 1.0)):
        with closing(OscServer(controls, {}, "0.0.0.0", 0, allow=allow)) as server, closing(Client(server)) as surface:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.bind((outside, 0))
                sender.sendto(build_msg("/perceivers/density", 1.0).dgram, (outside, server.port))
            surface.all()
            assert controls.get("density") == density
