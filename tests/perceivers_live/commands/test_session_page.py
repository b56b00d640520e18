"""The page opens in the browser of the desktop."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BROWSER = """#!{python}
import os, sys
from pathlib import Path
report = Path({report!r})
report.with_suffix(".part").write_text(f"{{sys.argv[1]}} {{os.sched_getscheduler(0)}}")
report.with_suffix(".part").rename(report)
"""
SHOW = """
import os, sys, time
from pathlib import Path
from engine.realtime import DAEMON, set_all_realtime
from perceivers_live.commands.session_page import show

set_all_realtime(DAEMON)
if os.sched_getscheduler(0) != os.SCHED_RR:
    sys.exit({not_permitted})
show("http://127.0.0.1:1/page/")
end = time.monotonic() + 30
while not Path(sys.argv[1]).exists() and time.monotonic() < end:
    time.sleep(0.01)
"""

NOT_PERMITTED = 3  # exit status


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such priorities")
def test_browser_for_the_page_runs_with_normal_priority(tmp_path: Path) -> None:
    browser, report = tmp_path / "browser", tmp_path / "report"
    browser.write_text(BROWSER.format(python=sys.executable, report=str(report)))
    browser.chmod(0o700)
    env = {**os.environ, "DISPLAY": ":99", "BROWSER": str(browser)}
    show = [sys.executable, "-c", SHOW.replace("{not_permitted}", str(NOT_PERMITTED)), str(report)]
    if subprocess.run(show, env=env, timeout=60, check=False).returncode == NOT_PERMITTED:
        pytest.skip("real-time priority is not permitted here")
    assert report.read_text() == f"http://127.0.0.1:1/page/ {os.SCHED_OTHER}"
