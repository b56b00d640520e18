"""A running OSC server and its clients."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from engine.states import StateError
from perceivers_live.controls.registry import Controls
from perceivers_live.osc.server import OscServer, Query
from tests.perceivers_live.osc.client import Client


@pytest.fixture
def controls() -> Controls:
    return Controls()


@pytest.fixture
def calls() -> list[tuple[object, ...]]:
    return []


@pytest.fixture
def server(controls: Controls, calls: list[tuple[object, ...]]) -> Iterator[OscServer]:
    def panic() -> None:
        calls.append(("panic",))

    def save(name: str) -> Any:
        calls.append(("save", name))
        return "/never/sent"

    def fail() -> None:
        raise RuntimeError("no\nengine")

    def refuse() -> None:
        raise StateError("take 1: no such state")

    commands = {"panic": panic, "save": save, "fail": fail, "refuse": refuse}
    queries: dict[str, Query] = {
        "state": lambda: ["listening"],
        "stats": lambda: ["late", 2.0],
        "states": lambda: [2, "a", "b"],
    }
    with closing(OscServer(controls, commands, port=0, queries=queries, stats_interval=3600)) as running:
        yield running


@pytest.fixture
def surface(server: OscServer) -> Iterator[Client]:
    with closing(Client(server)) as client:
        yield client


@pytest.fixture
def subscriber(server: OscServer) -> Iterator[Client]:
    with closing(Client(server)) as client:
        client.subscribe()
        assert client.all() == []
        yield client
