"""Plots of a report, as PNG and SVG. Needs matplotlib (the extra `plots`)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from runtime.calibration.eprocess import (
    LIMIT_LOG,
    WEALTH,
    BettingTable,
    Kind,
    log_e_values,
    values_of,
)
from runtime.calibration.evidence import LENGTHS
from runtime.calibration.report import Parts, curve
from runtime.figures import save_figures
from runtime.sampling import LOGPROB_UNITS_PER_NAT

CURVE_LENGTH_MAX = 128
"""ROC and wealth are drawn at the greatest reported length up to this that outputs have."""
WEALTH_JOBS = 2_000


def write_plots(report: dict[str, Any], parts: Parts, folder: Path, name: str) -> list[Path]:
    """`NAME-roc`, `NAME-detection` and `NAME-wealth` in both formats; returns their paths."""
    title = f"provider {report['provider_profile']}, verifier {report['verifier_profile']}"
    length = _curve_length(parts)
    figures = {
        f"{name}-roc": _roc(parts, title, length),
        f"{name}-detection": _detection(report, title),
        f"{name}-wealth": _wealth(report, parts, title, length),
    }
    return save_figures(figures, folder)


def _curve_length(parts: Parts) -> int:
    longest = max((e.tokens for e in parts.held_out_honest), default=0)
    fitting = [n for n in LENGTHS if n <= min(longest, CURVE_LENGTH_MAX)]
    return max(fitting, default=LENGTHS[0])


def _colours(names: Sequence[str]) -> dict[str, Any]:
    palette = matplotlib.colormaps["tab20"]
    return {name: palette(index % 20) for index, name in enumerate(names)}


def _roc(parts: Parts, title: str, length: int) -> Figure:
    figure = Figure(figsize=(12, 5), layout="constrained")
    figure.suptitle(f"ROC at {length} output tokens, held-out jobs\n{title}", fontsize=10)
    names = sorted(parts.held_out)
    colours = _colours(names)
    axes = figure.subplots(1, 2, sharey=True)
    for axis, kind in zip(axes, Kind, strict=True):
        honest = values_of(parts.held_out_honest, kind, length)
        for name in names:
            fraudulent = values_of(parts.held_out[name], kind, length)
            if honest and fraudulent:
                false, true = curve(honest, fraudulent)
                axis.plot(false, true, color=colours[name], label=name, linewidth=1.4)
        axis.plot([0, 1], [0, 1], color="grey", linewidth=0.6, linestyle=":")
        axis.set_xscale("symlog", linthresh=1 / max(len(honest), 1))
        axis.set_xlim(0, 1)
        axis.set_xlabel(f"share of {len(honest)} honest jobs rejected")
        axis.set_title(f"by the mean {kind.value}", fontsize=10)
    axes[0].set_ylabel("share of fraudulent jobs detected")
    _legend(figure, axes[0])
    return figure


def _legend(figure: Figure, axis: Any) -> None:
    handles, labels = axis.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside right center", fontsize=8)


def _detection(report: dict[str, Any], title: str) -> Figure:
    figure = Figure(figsize=(11, 6), layout="constrained")
    axis = figure.subplots()
    frauds = report["held_out"]["frauds"]
    names = sorted(frauds)
    entries = [entry for fraud in frauds.values() for entry in fraud["by_length"]]
    lengths = [length for length in LENGTHS if any(e["output_tokens"] == length for e in entries)]
    width = 0.8 / max(len(lengths), 1)
    named: set[int] = set()
    for turn, length in enumerate(lengths):
        for place, name in enumerate(names):
            found = [d for d in frauds[name]["by_length"] if d["output_tokens"] == length]
            if not found:
                continue
            shade = matplotlib.colormaps["viridis"](turn / len(LENGTHS) + 0.1)
            share, lower = found[0]["share"], found[0]["share_lower_95"]
            axis.bar(
                place + (turn - (len(lengths) - 1) / 2) * width,
                share,
                width,
                color=shade,
                yerr=[[max(share - lower, 0)], [0]],
                error_kw={"linewidth": 0.8},
                label=None if length in named else f"{length} tokens",
            )
            named.add(length)
    axis.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=8)
    axis.set_ylim(0, 1.02)
    axis.set_ylabel("share detected in one job (bar: lower 95% bound)")
    axis.set_title(f"Detection with the registered thresholds, held-out jobs\n{title}", fontsize=10)
    _legend(figure, axis)
    return figure


def _tables(report: dict[str, Any], length: int) -> list[BettingTable]:
    return [
        BettingTable(
            Kind(entry["kind"]),
            entry["length"],
            tuple(entry["edges"]),
            tuple(entry["log_e_values"]),
        )
        for entry in report["e_process"]["tables"]
        if entry["length"] == length
    ]


def _wealth(report: dict[str, Any], parts: Parts, title: str, length: int) -> Figure:
    figure = Figure(figsize=(11, 5.5), layout="constrained")
    axis = figure.subplots()
    entries = report["e_process"]["frauds"]
    shown = [
        name
        for name in sorted(entries)
        if any(e["weak"] for e in entries[name] if e["output_tokens"] == length)
    ]
    colours = _colours(shown)
    unit = 1 / (LOGPROB_UNITS_PER_NAT * np.log(10))
    random_source = np.random.default_rng(0)
    for name in ("honest", *shown):
        evidence = parts.held_out_honest if name == "honest" else parts.held_out[name]
        found = [log_e_values(table, evidence) for table in _tables(report, length)]
        logs = [log for log in found if len(log)]
        best: np.ndarray | None = None
        if logs:
            drawn = random_source.integers(0, len(logs[0]), WEALTH_JOBS)
            best = np.max([np.cumsum(log[drawn]) for log in logs], axis=0) * unit
        if best is not None:
            colour = "black" if name == "honest" else colours[name]
            axis.plot(np.arange(1, len(best) + 1), best, color=colour, label=name, linewidth=1.3)
    axis.axhline(LIMIT_LOG * unit, color="red", linewidth=0.8, linestyle="--")
    axis.set_xscale("log")
    axis.set_ylim(-6, 12)
    axis.set_xlabel("audited jobs")
    axis.set_ylabel("log10 of wealth")
    axis.set_title(
        f"E-process at {length} tokens, one sequence drawn from held-out jobs each; "
        f"ejected at 2 x {WEALTH:,}\n{title}",
        fontsize=10,
    )
    _legend(figure, axis)
    return figure
