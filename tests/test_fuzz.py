"""Every target of ``python -m fuzz`` keeps its contract, tested with a few damaged inputs."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")
pytest.importorskip("tqdm")

from fuzz.contract import FailOnError, Target
from fuzz.live import CLOCKED
from fuzz.targets import TARGETS

SLOW = {"graph": 15, "heads": 15, "weights": 30, "archive": 60, "midi": 60}  # examples
ODD = (bytes(4), b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80", b"\n", b"9" * 20)


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restores the clock of sessions, which targets replace, and fails on errors in the log."""
    for module in CLOCKED:
        monkeypatch.setattr(module, "time", time)
    faults = FailOnError(logging.ERROR)
    logging.getLogger().addHandler(faults)
    yield
    logging.getLogger().removeHandler(faults)


@st.composite
def damaged(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """A valid input with bytes changed, removed, repeated, inserted or cut off."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 4))):
        at, length = draw(st.integers(0, len(data))), draw(st.sampled_from((0, 1, 2, 4, 16)))
        bit = 1 << draw(st.integers(0, 7))
        part = data[at : at + length]
        instead = draw(st.sampled_from((b"", 2 * part, bytes(byte ^ bit for byte in part), *ODD)) | st.binary(max_size=8))
        data = data[:at] + instead + data[at + length :]
    return data[: draw(st.none() | st.integers(0, len(data)))]


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_keeps_its_contract(name: str, tmp_path: Path) -> None:
    target: Target = TARGETS[name](tmp_path)
    for seed in (*target.seeds, b""):
        target.feed(seed)

    @settings(max_examples=SLOW.get(name, 100), deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(damaged(target.seeds) | st.binary(max_size=200))
    def feed(data: bytes) -> None:
        target.feed(data)

    feed()
