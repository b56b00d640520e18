"""Of all tests of the daemon."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture
def quiet_log(caplog: pytest.LogCaptureFixture) -> None:
    """Faults are provoked on purpose."""
    caplog.set_level(logging.CRITICAL)
