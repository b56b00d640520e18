"""Configures all tests: one thread per process, hypothesis profiles, and the marker `alone` for the live tests.

With more threads PyTorch would compete with other test processes for the cores, and some tests would take ten times as long.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # before PyTorch and numpy are imported; child processes inherit it

import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

LIVE = Path(__file__).parent / "live"

base = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # no time limits, because the machine may be busy
settings.register_profile("fixed", base, derandomize=True, print_blob=True)  # the same examples in every run
settings.register_profile("random", base)
settings.register_profile("long", base, max_examples=400, stateful_step_count=50)  # before a release
settings.load_profile("fixed" if os.environ.get("CI") else "random")  # or pytest --hypothesis-profile=NAME


@pytest.hookimpl(tryfirst=True)  # before pytest selects tests by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks all live tests as `alone`: they play in real time, on their own JACK servers."""
    for item in items:
        if LIVE in item.path.parents:
            item.add_marker(pytest.mark.alone)


@pytest.fixture(autouse=True)
def denormals_are_kept() -> Iterator[None]:
    """Fails a test that leaves the thread in flush-to-zero mode, which would change the results of later tests."""
    yield
    assert math.ulp(0.0) * 1.0 > 0.0, "this test left denormals flushed to zero"
