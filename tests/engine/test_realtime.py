"""Real-time priority is taken where it can be had, and given up by whoever would take all of a core."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

ELSEWHERE = """
import json, os, threading, time
from engine.realtime import DAEMON, MODEL, WINDOW, Budget, set_realtime, clear_realtime

def policies():
    return [os.sched_getscheduler(int(thread)) for thread in os.listdir("/proc/self/task")]

"""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such priorities")


def elsewhere(program: str) -> Any:
    """What a program prints as JSON; in a process of its own, with which its priorities go."""
    done = subprocess.run([sys.executable, "-c", ELSEWHERE + program], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def permitted() -> None:
    if elsewhere("set_realtime(MODEL); print(json.dumps(policies()))") != [os.SCHED_RR]:
        pytest.skip("real-time priority is not permitted here")


def test_whoever_may_not_have_it_goes_on_without() -> None:
    assert elsewhere("del os.sched_setscheduler; clear_realtime(); set_realtime(DAEMON); Budget(MODEL).check(); print(1)") == 1


@pytest.mark.usefixtures("permitted")
def test_what_a_thread_begins_has_its_priority() -> None:
    program = """
set_realtime(DAEMON)
found = []
thread = threading.Thread(target=lambda: found.append((os.sched_getscheduler(0), os.sched_getparam(0).sched_priority)))
thread.start()
thread.join()
set_realtime(MODEL)
now = [(os.sched_getscheduler(0), os.sched_getparam(0).sched_priority)]
clear_realtime()
print(json.dumps([*found, *now, os.sched_getscheduler(0)]))
"""
    assert elsewhere(program) == [[os.SCHED_RR, 3], [os.SCHED_RR, 2], os.SCHED_OTHER]


@pytest.mark.usefixtures("permitted")
def test_an_audio_servers_thread_keeps_its_own() -> None:
    program = "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)); set_realtime(DAEMON); print(json.dumps(policies()))"
    assert elsewhere(program) == [os.SCHED_FIFO]


@pytest.mark.usefixtures("permitted")
def test_it_is_given_up_under_steady_load_by_all_threads_and_taken_again_after_it() -> None:
    program = """
threading.Thread(target=time.sleep, args=(10,), daemon=True).start()
budget, found = Budget(MODEL), [policies()]
for busy in (True, False):
    time.process_time = time.monotonic if busy else lambda: 0.0  # what others leave us of the machine is no part of the test
    time.sleep(1.1 * WINDOW)
    budget.check()
    time.sleep(1.1 * WINDOW)
    budget.check()
    found.append(policies())
print(json.dumps(found), flush=True)
os._exit(0)
"""
    assert elsewhere(program) == [[os.SCHED_RR] * 2, [os.SCHED_OTHER] * 2, [os.SCHED_RR] * 2]
