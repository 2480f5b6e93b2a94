"""CPU that a compute unit takes on the reference engine, of prompts and of answers.

    python bench/units/measure.py PACKAGE [ROUNDS]

All lengths take turns, round after round; ratios are to a prompt of BASELINE tokens in the same
round. Prints one JSON object; docs/compute-units.md has the outcome.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import psutil

from chain.units import compute_units
from runtime.packages import load
from runtime.reference.engine import ReferenceEngine
from runtime.reference.model import Model

BASELINE = 256
LENGTHS = (16, 64, 256, 1024, 2000)
DECODED = 16
"""Tokens of an answer, one after the other, at each length of what was before."""


def measured(model: Model, parameters: int, length: int) -> dict[str, float]:
    """CPU microseconds a unit: of a prompt of this length, and of tokens that follow it."""
    tokens = [(7 * index) % 1000 + 10 for index in range(length + DECODED)]
    sequence = model.sequence(length + DECODED)
    marks = [time.process_time()]
    model.extend(sequence, tokens[:length], length - 1)
    marks.append(time.process_time())
    for token in tokens[length:]:
        model.extend(sequence, [token], 0)
    marks.append(time.process_time())
    prompt_s, answer_s = marks[1] - marks[0], marks[2] - marks[1]
    return {
        f"prompt of {length}": prompt_s * 1e6 / compute_units(parameters, length),
        f"answer after {length}": answer_s * 1e6 / compute_units(parameters, DECODED),
    }


def main(path: Path, rounds: int) -> None:
    """Print one JSON object."""
    package = load(path)
    engine = ReferenceEngine.load(package, 1)
    parameters = package.manifest.parameters
    measured(engine.model, parameters, BASELINE)
    ratios: dict[str, list[float]] = {}
    baselines: list[float] = []
    for _ in range(rounds):
        found: dict[str, float] = {}
        for length in LENGTHS:
            found |= measured(engine.model, parameters, length)
        baseline = found[f"prompt of {BASELINE}"]
        baselines.append(baseline)
        for name, cost in found.items():
            ratios.setdefault(name, []).append(cost / baseline)
    report = {
        "model": package.manifest.name,
        "parameters": parameters,
        "rounds": rounds,
        "cpu_us_per_unit_of_baseline": [round(cost, 1) for cost in baselines],
        "ratios": {
            name: {
                "median": round(statistics.median(values), 2),
                "least": round(min(values), 2),
                "most": round(max(values), 2),
            }
            for name, values in ratios.items()
        },
        "load": psutil.getloadavg()[0],
    }
    sys.stdout.write(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 3)
