"""The log of a performance."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from perceivers_live.commands.logs import MAX_WAITING

LINES = 3 * MAX_WAITING
PROGRAM = f"""
import logging, os, sys
from perceivers_live.commands import logs
logs.begin()
background, log = logs.BackgroundLog(), logging.getLogger("perceivers_live.test")
for i in range({LINES}):
    log.info("line %d", i)
print("logged", flush=True)
sys.stdin.readline()  # not input(), which flushes the standard error
background.close()
print("stuck" if background.stuck else "written", flush=True)
os._exit(0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal that can be stopped")
@pytest.mark.parametrize("continues", [True, False])
def test_a_stopped_terminal_does_not_stop_a_thread_that_logs(continues: bool) -> None:
    import termios

    terminal, end = os.openpty()
    termios.tcflow(end, termios.TCOOFF)  # as by Ctrl-S
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=end,
        text=True,
        cwd=Path(__file__).parents[3],
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "logged\n"
        written = ""
        if continues:
            termios.tcflow(end, termios.TCOON)
            while "dropped" not in written:
                written += os.read(terminal, 1 << 16).decode()
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == ("written\n" if continues else "stuck\n")
        assert process.wait() == 0
    if continues:
        lines = [int(number) for number in re.findall(r"line (\d+)", written)]
        dropped = re.search(r"(\d+) lines of the log were dropped", written)
        assert lines == list(range(len(lines)))
        assert dropped is not None
        assert len(lines) + int(dropped[1]) == LINES
    os.close(terminal)
    os.close(end)
