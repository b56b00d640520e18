"""Configures all tests: one thread per process, hypothesis profiles, process-wide states.

With more threads PyTorch would compete with other test processes for the cores, and some tests would take ten times as long.
"""

import math
import os
import signal
from collections.abc import Iterator

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # before PyTorch and numpy are imported; child processes inherit it

import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background job; child processes would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

base = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # no time limits, because the machine may be busy
settings.register_profile("fixed", base, derandomize=True, print_blob=True)  # the same examples in every run
settings.register_profile("random", base)
settings.register_profile("long", base, max_examples=400, stateful_step_count=50)  # before a release
settings.load_profile("fixed")  # or pytest --hypothesis-profile=NAME


@pytest.fixture(autouse=True)
def denormals_are_kept() -> Iterator[None]:
    """Fails a test that leaves the thread in flush-to-zero mode, which would change the results of later tests."""
    yield
    assert math.ulp(0.0) * 1.0 > 0.0, "this test left denormals flushed to zero"
