"""The blocks of docs/ that are marked `run`, each page from a folder of its own, on the devnet."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.network import COMMAND_BOUND_S, Network
from tests.pages import REPOSITORY, blocks, pages

pytestmark = pytest.mark.timeout(900, method="signal")

DEVNET_IN_PAGES = "/tmp/net"
RUN = {
    page.name: text
    for page in pages()
    if (text := "\n".join(block.text for block in blocks(page) if block.mark == "run"))
}


@pytest.mark.parametrize("name", sorted(RUN))
def test_the_blocks_of_a_page_run_in_the_order_they_are_read(
    name: str, network: Network, tmp_path: Path
) -> None:
    (tmp_path / "examples").symlink_to(REPOSITORY / "examples")
    script = "set -euo pipefail\n" + RUN[name].replace(DEVNET_IN_PAGES, str(network.home))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    process = subprocess.Popen(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=2 * COMMAND_BOUND_S)
        assert process.returncode == 0, output
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
