"""Fixtures for the page's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.perceivers_live.page.serving import Site, served


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A served page with a folder of recordings."""
    with served(tmp_path) as running:
        yield running
