"""Fixtures for all tests of the daemon."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture
def quiet_log(caplog: pytest.LogCaptureFixture) -> None:
    """Hides log messages about faults that the test causes on purpose."""
    caplog.set_level(logging.CRITICAL)
