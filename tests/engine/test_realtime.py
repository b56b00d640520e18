"""Real-time priority is set if permitted, and dropped by a process that uses most of a core."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

PREAMBLE = """
import json, os, threading, time
from engine.realtime import DAEMON, MODEL, WINDOW, RealtimeBudget, set_all_realtime, set_realtime, clear_realtime

def policies():
    return [os.sched_getscheduler(int(thread)) for thread in os.listdir("/proc/self/task")]

"""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such priorities")


def run_in_process(program: str) -> Any:
    """Runs a program in a separate process and returns what it prints as JSON."""
    done = subprocess.run([sys.executable, "-c", PREAMBLE + program], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def permitted() -> None:
    if run_in_process("set_realtime(MODEL); print(json.dumps(policies()))") != [os.SCHED_RR]:
        pytest.skip("real-time priority is not permitted here")


def test_without_permission_the_functions_do_nothing() -> None:
    assert (
        run_in_process(
            "del os.sched_setscheduler; clear_realtime(); set_realtime(DAEMON); RealtimeBudget(MODEL).check(); print(1)"
        )
        == 1
    )


@pytest.mark.usefixtures("permitted")
def test_threads_inherit_the_priority() -> None:
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
    assert run_in_process(program) == [[os.SCHED_RR, 3], [os.SCHED_RR, 2], os.SCHED_OTHER]


@pytest.mark.usefixtures("permitted")
def test_set_all_realtime_includes_running_threads() -> None:
    """Otherwise such a thread could hold the interpreter lock while processes of normal priority preempt it."""
    program = """
done = threading.Event()
threads = [threading.Thread(target=done.wait) for _ in range(3)]
for thread in threads:
    thread.start()
set_all_realtime(DAEMON)
print(json.dumps(policies()))
done.set()
"""
    assert run_in_process(program) == [os.SCHED_RR] * 4


@pytest.mark.usefixtures("permitted")
def test_a_thread_of_an_audio_server_keeps_its_priority() -> None:
    program = "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)); set_realtime(DAEMON); print(json.dumps(policies()))"
    assert run_in_process(program) == [os.SCHED_FIFO]


@pytest.mark.usefixtures("permitted")
def test_all_threads_lose_the_priority_under_steady_load_and_regain_it_afterwards() -> None:
    program = """
threading.Thread(target=time.sleep, args=(10,), daemon=True).start()
budget, found = RealtimeBudget(MODEL), [policies()]
for busy in (True, False):
    time.process_time = time.monotonic if busy else lambda: 0.0  # independent of the load of the machine
    time.sleep(1.1 * WINDOW)
    budget.check()
    time.sleep(1.1 * WINDOW)
    budget.check()
    found.append(policies())
print(json.dumps(found), flush=True)
os._exit(0)
"""
    assert run_in_process(program) == [[os.SCHED_RR] * 2, [os.SCHED_OTHER] * 2, [os.SCHED_RR] * 2]
