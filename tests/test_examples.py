"""The examples work as documented."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from perceivers_live.controls.registry import Controls
from perceivers_live.osc.server import OscServer

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_the_osc_client_sets_controls_and_receives_answers(tmp_path: Path) -> None:
    controls, ran = Controls(), []
    server = OscServer(controls, {"takeover": lambda: ran.append("takeover")}, port=0)
    try:
        program = (EXAMPLES / "osc_client.py").read_text(encoding="utf-8").replace("9010", str(server.port))
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    finally:
        server.close()
    assert done.stdout.splitlines()[-1].startswith("/perceivers/temperature 1.1")
    assert controls.get("mode") == "duet"
    assert ran == ["takeover"]
