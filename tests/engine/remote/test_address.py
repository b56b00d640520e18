"""Values of ``--engine``."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.remote.address import AddressError, parse


def remote(text: str, *arguments: object) -> tuple[str, str]:
    """The host that ssh connects to, and the remote command."""
    command = parse(text, *arguments).command  # type: ignore[arg-type]
    assert command[0] == "ssh"
    assert command[-3] == "--"
    return command[-2], command[-1]


def test_an_ssh_address_gives_an_ssh_command() -> None:
    assert remote("ssh://gpu-box") == ("gpu-box", "perceivers-live serve")
    assert "BatchMode=yes" in parse("ssh://gpu-box").command
    assert remote("ssh://anna@GPU-Box:2222")[0] == "anna@GPU-Box"  # an alias in ssh's configuration has upper and lower case
    assert remote("ssh://anna@[::1]:2222")[0] == "anna@::1"


def test_user_port_and_checkpoint_are_passed_to_ssh() -> None:
    text = "ssh://anna@gpu.example.org:2222/data/my%20models/best"
    assert remote(text) == ("anna@gpu.example.org", "perceivers-live serve --checkpoint '/data/my models/best'")
    command = parse(text).command
    assert command[command.index("-p") + 1] == "2222"


def test_a_checkpoint_below_the_home_folder_gives_a_relative_path() -> None:
    assert remote("ssh://box/~/runs/best")[1] == "perceivers-live serve --checkpoint runs/best"


def test_runtime_and_threads_are_passed_to_the_server() -> None:
    assert remote("ssh://box", "cuda", 3)[1] == "perceivers-live serve --runtime cuda --threads 3"


def test_a_command_is_used_unchanged() -> None:
    assert parse("docker run -i 'my image' perceivers-live serve", "cuda").command[:4] == ("docker", "run", "-i", "my image")


@pytest.mark.parametrize(
    "text",
    [
        *("ssh://", "ssh://-oProxyCommand=reboot", "ssh://-l@box", "ssh://box:port", "ssh://box:99999", "ssh://anna:secret@box"),
        *("ssh://box?x", "ssh://box#x", "http://box", "tcp://box:1", " ", "'", "ssh://bo x", "ssh://[::1"),
    ],
)
def test_invalid_addresses_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(AddressError, match="--engine") as error:
        parse(text)
    assert str(error.value).isprintable()


@given(st.text(max_size=60).map("ssh://".__add__) | st.text(max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        command = parse(text).command
    except AddressError as error:
        assert str(error).isprintable()
    else:
        assert not text.startswith("ssh://") or not command[-2].startswith("-")
