"""CPU that a scrape of /metrics costs: a running devnet, with scrapes and without.

    python bench/node/scrape.py HOME [SCRAPES]

Scrapes are further apart than a text is kept, so each one is made anew. What the same processes use
in as long a time without scrapes is taken off.
"""

import json
import sys
import time
import urllib.request
from pathlib import Path

import psutil

from chain.devnet import load_devnet
from chain.node.metrics import FRESH_S

APART_S = FRESH_S + 0.1


def cpu_s(processes: list[psutil.Process]) -> float:
    """User and system time of all of them."""
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def main(home: Path, scrapes: int) -> None:
    """Print one JSON object."""
    nodes = [node for node in load_devnet(home).nodes if node.process is not None]
    processes = [psutil.Process(node.process.pid) for node in nodes if node.process is not None]
    used, size = {}, 0
    for kind in ("idle", "scraped"):
        before_s = cpu_s(processes)
        for _ in range(scrapes):
            time.sleep(APART_S)
            for node in nodes if kind == "scraped" else ():
                with urllib.request.urlopen(f"http://{node.http}/metrics", timeout=60) as reply:
                    size = len(reply.read())
        used[kind] = cpu_s(processes) - before_s
    count = scrapes * len(nodes)
    report = {
        "validators": len(nodes),
        "scrapes": count,
        "idle_cpu_s": round(used["idle"], 2),
        "scraped_cpu_s": round(used["scraped"], 2),
        "cpu_ms_per_scrape": round(1000 * (used["scraped"] - used["idle"]) / count, 2),
        "bytes": size,
        "load": psutil.getloadavg()[0],
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 25)
