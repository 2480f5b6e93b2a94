"""What tests of the explorer page need beside Python: its npm packages, and a browser."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from chain.explorer.schema import schema

WEB = Path(__file__).resolve().parents[2] / "web"
CHROMIUM = Path("/usr/bin/chromium")
REQUIRED = "ASSAY_REQUIRE_WEB"
"""Set where these tests may not be skipped: in CI."""
BOUND_S = 800.0


def need(found: bool, what: str) -> None:
    """Skip, or fail where it is required, unless something is there."""
    if found:
        return
    if os.environ.get(REQUIRED):
        pytest.fail(f"{what}, and {REQUIRED} is set")
    pytest.skip(what)


def vitest(name: str, **environment: str) -> str:
    """Run one file of `web/tests`; returns what it printed. Fails if a test of it fails."""
    need(shutil.which("node") is not None, "node is not installed")
    need((WEB / "node_modules").is_dir(), "the page's packages are not installed: run make web")
    _write_schema()
    done = subprocess.run(
        ["node", "node_modules/vitest/vitest.mjs", "run", "--no-color", f"tests/{name}"],
        cwd=WEB,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )
    sys.stdout.write(done.stdout)  # pytest shows it when a test fails, and with -rP
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-8000:]
    return done.stdout


def _write_schema() -> None:
    """The page's formats are those of this tree, whenever it was built last."""
    text = json.dumps(schema(), indent=1) + "\n"
    path = WEB / "src" / "schema.json"
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
