"""A runtime with the tiny engine as a process of its own, to be stopped and killed by tests.

python -m tests.chain.tiny_runtime PORT_FILE STEP_S STALL_S
"""

import asyncio
import os
import sys
from pathlib import Path

from tests.runtime.serving import limits, serving
from tests.runtime.tiny_engine import TinyEngine


async def serve(port_file: Path, step_s: float, stall_s: float) -> None:
    """Serve until the process is ended."""
    engine = TinyEngine(step_s=step_s)
    async with serving(engine, service_limits=limits(running_limit=4, stall_s=stall_s)) as target:
        part = port_file.with_name(f"{port_file.name}.{os.getpid()}.part")
        part.write_text(target)
        part.replace(port_file)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))
