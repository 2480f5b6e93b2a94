"""Plots of a report, as PNG and SVG. Needs matplotlib (the extra `plots`)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from matplotlib.figure import Figure

from consensus.sim.figures import save_figures

LINEAR_TO: Final = 1e5
"""Grain below which the axes are linear: margins span six powers of ten, and zero."""


def write_plots(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """`strategies`, and one for each sweep, in both formats; returns their paths."""
    figures = {"strategies": _strategies(report)}
    for sweep in report.get("sweeps", ()):
        figures[sweep["name"].replace("_", "-")] = _sweep(sweep)
    return save_figures(figures, folder)


def _strategies(report: Mapping[str, Any]) -> Figure:
    rows = list(reversed(report["strategies"]))
    figure = Figure(figsize=(11, 0.38 * len(rows) + 1.6), layout="constrained")
    axis = figure.subplots()
    margins = [row["margin"] for row in rows]
    means = [margin["mean"] for margin in margins]
    colours = ["tab:blue" if row["honesty_pays"] else "tab:red" for row in rows]
    axis.barh(range(len(rows)), means, color=colours)
    reach = [
        [margin["mean"] - margin["least"] for margin in margins],
        [margin["greatest"] - margin["mean"] for margin in margins],
    ]
    axis.errorbar(means, range(len(rows)), xerr=reach, fmt="none", ecolor="black", linewidth=0.8)
    axis.set_yticks(range(len(rows)), [row["name"] for row in rows], fontsize=8)
    axis.set_xscale("symlog", linthresh=LINEAR_TO)
    axis.axvline(0, color="grey", linewidth=0.6)
    axis.set_xlabel("what honesty earns more, grain a part (mean, extremes over seeds)")
    return figure


def _sweep(sweep: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axis = figure.subplots()
    for name in sorted({point["curve"] for point in sweep["points"]}):
        points = [point for point in sweep["points"] if point["curve"] == name]
        values = [point["value"] for point in points]
        means = [point["margin"]["mean"] for point in points]
        axis.plot(values, means, marker="o", label=name)
        axis.fill_between(
            values,
            [point["margin"]["least"] for point in points],
            [point["margin"]["greatest"] for point in points],
            alpha=0.2,
        )
    values = [point["value"] for point in sweep["points"]]
    if max(values) >= 100 * max(1, min(values)):
        axis.set_xscale("symlog", linthresh=max(1, min(value for value in values if value)))
    axis.set_yscale("symlog", linthresh=LINEAR_TO)
    axis.axhline(0, color="black", linewidth=0.8)
    axis.set_xlabel(f"{sweep['name']} ({sweep['unit']})")
    axis.set_ylabel("what honesty earns more, grain a part")
    axis.legend(fontsize=8)
    return figure
