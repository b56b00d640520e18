"""The scripts of the page: type check, and unit tests of their pure parts, with the JavaScript tools."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from perceivers_live.page.routes import STATIC

HERE = Path(__file__).parent
TSC = shutil.which("tsc") or shutil.which("tsc", path=str(HERE / "node_modules" / ".bin"))
TIMEOUT = 60  # seconds for each tool
REQUIRED = os.environ.get("PERCEIVERS_LIVE_REQUIRE_BROWSER") == "1"


@pytest.mark.skipif(not REQUIRED and shutil.which("node") is None, reason="needs node (Debian: nodejs)")
def test_the_pure_parts_pass_their_unit_tests() -> None:
    done = subprocess.run(["node", "--test", str(HERE)], capture_output=True, text=True, timeout=TIMEOUT, cwd=HERE)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "# pass 0" not in done.stdout


@pytest.mark.skipif(not REQUIRED and TSC is None, reason=f"needs TypeScript (npm install --prefix {HERE.name}, in this folder)")
def test_type_check_passes() -> None:
    assert TSC is not None, "TypeScript is missing"
    done = subprocess.run([TSC, "-p", str(STATIC / "jsconfig.json")], capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stdout


def test_page_files_contain_no_foreign_urls_and_no_dynamic_code() -> None:
    for path in STATIC.glob("*"):
        text = path.read_text(encoding="utf-8")
        for word in ("eval(", "innerHTML", "document.write", "insertAdjacentHTML", "https://", "new Function"):
            assert word not in text, f"{path.name}: {word}"
        assert text.replace("http://www.w3.org/2000/svg", "").count("http://") == 0, path.name
