"""Of all tests: one thread a process, hypothesis without a deadline, and the mark of those that need the machine for themselves.

PyTorch's threads would fight for the cores with each other and with other test processes: some tests take ten times as long then.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # before PyTorch or numpy is imported; child processes inherit it

import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

LIVE = Path(__file__).parent / "live"

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine may take its time
settings.register_profile("fixed", patient, derandomize=True, print_blob=True)  # the same examples every time
settings.register_profile("random", patient)
settings.load_profile("fixed" if os.environ.get("CI") else "random")  # or pytest --hypothesis-profile=NAME


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All live tests need the machine for themselves: they play in real time, on JACK servers of their own."""
    for item in items:
        if LIVE in item.path.parents:
            item.add_marker(pytest.mark.alone)


@pytest.fixture(autouse=True)
def arithmetic_is_kept() -> Iterator[None]:
    """No test may leave this thread flushing denormals to zero: the tests after it would compute, and fail, differently."""
    yield
    assert math.ulp(0.0) * 1.0 > 0.0, "this test left denormals flushed to zero"
