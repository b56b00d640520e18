"""Fixtures for the page's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.perceivers_live.page.serving import Served, served


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Served]:
    """A page that is served, with a folder of recordings."""
    with served(tmp_path) as running:
        yield running
