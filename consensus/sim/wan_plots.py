"""The wide-area report as a picture, PNG and SVG. Needs matplotlib (the extra `plots`)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from consensus.sim.figures import save_figures

KINDS_SHOWN: Final = 6


def write_plots(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """`wan.png` and `wan.svg`; returns their paths."""
    rows = [row for row in report["rows"] if row["transport"] == "stream"]
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    finality, bytes_sent, kinds = figure.subplots(1, 3)
    _finality(finality, rows)
    _bytes(bytes_sent, rows)
    _kinds(kinds, [row for row in rows if row["workload"] == "load"])
    return save_figures({"wan": figure}, folder)


def _finality(axis: Axes, rows: list[dict[str, Any]]) -> None:
    for workload, colour in (("load", "tab:blue"), ("sparse", "tab:green")):
        shown = [row for row in rows if row["workload"] == workload and row["finality_ms"]]
        sizes = [row["validators"] for row in shown]
        for percentile, style in (("p50", "-o"), ("p99", "--o")):
            values = [row["finality_ms"][percentile] for row in shown]
            axis.plot(sizes, values, style, color=colour, label=f"{workload}, {percentile}")
    axis.axhline(1_000, color="grey", linewidth=0.6)
    _validators(axis)
    axis.set_ylim(bottom=0)
    axis.set_ylabel("finality, ms")
    axis.legend(fontsize=8)


def _bytes(axis: Axes, rows: list[dict[str, Any]]) -> None:
    for workload in ("load", "sparse", "idle"):
        shown = [row for row in rows if row["workload"] == workload]
        sizes = [row["validators"] for row in shown]
        sent = [row["bytes_a_validator_second"] for row in shown]
        without = [row["bytes_without_batches_a_validator_second"] for row in shown]
        (line,) = axis.plot(sizes, sent, "-o", label=workload)
        axis.plot(sizes, without, ":", color=line.get_color())
    _validators(axis)
    axis.set_yscale("log")
    axis.set_ylabel("bytes a validator sends a second\n(dotted: without batches)")
    axis.legend(fontsize=8)


def _kinds(axis: Axes, rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    # Biggest at the largest network first.
    names = [kind for kind in rows[-1]["by_kind"] if kind != "BatchMessage"][:KINDS_SHOWN]
    below = [0.0] * len(rows)
    for name in names:
        sent = [row["by_kind"].get(name, {}).get("bytes_a_validator_second", 0.0) for row in rows]
        axis.bar([str(row["validators"]) for row in rows], sent, bottom=below, label=name)
        below = [low + more for low, more in zip(below, sent, strict=True)]
    axis.set_xlabel("validators")
    axis.set_ylabel("bytes a validator sends a second, under load")
    axis.set_title("beside batches", fontsize=9)
    axis.legend(fontsize=7)


def _validators(axis: Axes) -> None:
    axis.set_xscale("log")
    sizes = (4, 10, 31, 100)
    axis.set_xticks(sizes, [str(size) for size in sizes])
    axis.minorticks_off()
    axis.set_xlabel("validators")
