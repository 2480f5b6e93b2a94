"""python -m tests.fuzz [TARGET...] [--seconds S] [--cases N] [--full] [--seed N]

or, for one input that failed: python -m tests.fuzz TARGET --input FILE
"""

import argparse
from pathlib import Path

from tests.fuzz import harness
from tests.fuzz.targets import TARGETS

FAILURES = Path("build/fuzz")


def main() -> None:
    """Run the targets named, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=harness.__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--seconds", type=float, default=60.0, help="at least this long for each")
    parser.add_argument("--cases", type=int, default=0, help="and at least this many for each")
    parser.add_argument("--full", action="store_true", help="and as many as the target asks for")
    parser.add_argument("--seed", type=int, default=1, help="the same seed draws the same cases")
    parser.add_argument("--input", type=Path, help="try this file instead, with one target")
    parser.add_argument("--failures", type=Path, default=FAILURES, help="where inputs are kept")
    chosen = parser.parse_args()
    unknown = [name for name in chosen.targets if name not in TARGETS]
    if unknown:
        parser.error(f"no target {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    if chosen.input is not None:
        if len(chosen.targets) != 1:
            parser.error("--input is for exactly one target")
        harness.check(TARGETS[chosen.targets[0]], chosen.input.read_bytes(), chosen.failures)
        return
    for name in chosen.targets or TARGETS:
        target = TARGETS[name]
        cases = max(chosen.cases, target.full_cases if chosen.full else 0)
        harness.run(target, chosen.seed, chosen.seconds, chosen.failures, cases)


if __name__ == "__main__":
    main()
