"""Plots of a report, as PNG and SVG. Needs matplotlib (the extra `plots`)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from runtime.figures import save_figures


def write_plots(report: Mapping[str, Any], folder: Path, name: str) -> list[Path]:
    """`NAME.png` and `NAME.svg` with speed, overheads, verification and first token."""
    return save_figures({name: _draw(report)}, folder)


def _draw(report: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(11, 8), layout="constrained")
    machine, disturbance = report["machine"], report["disturbance"]
    figure.suptitle(
        f"{report['name']}, {report['profile']}, {report['threads']} thread(s), "
        f"{report['output_tokens']} output tokens, {report['rounds']} rounds\n"
        f"{machine['processor']}, {machine['processors']} processors, of which others took "
        f"{disturbance['processors_taken_by_others']:.0%}",
        fontsize=10,
    )
    speed, overheads, verification, first = figure.subplots(2, 2).flatten()
    entries = report["measured"]
    counts = [entry["in_flight"] for entry in entries]
    for name in entries[0]["generate"]:
        _line(speed, counts, [e["generate"][name]["tokens_per_s"] for e in entries], name)
    _line(speed, counts, [e["verify"]["tokens_per_s"] for e in entries], "verify")
    _axis(speed, counts, "output tokens a second")
    speed.set_yscale("log")
    for place, overhead in enumerate(entries[0]["overheads"]):
        label = f"{overhead['variant']} over {overhead['base']}"
        _line(overheads, counts, [e["overheads"][place]["cpu"] for e in entries], label)
    _axis(overheads, counts, "processor time a token, as a ratio")
    for clock in ("wall", "cpu"):
        found = [entry["verify_over_generate"][clock] for entry in entries]
        _line(verification, counts, found, clock)
    _axis(verification, counts, "verify over generate")
    verification.set_ylim(bottom=0)
    for key, label in (("median", "median"), ("nine_tenths", "nine tenths")):
        first.plot(counts, [e["first_token_ms"][key] for e in entries], marker="o", label=label)
    _axis(first, counts, "ms to the first token")
    first.set_ylim(bottom=0)
    return figure


def _line(
    axis: Any, counts: Sequence[int], spreads: Sequence[Mapping[str, float]], label: str
) -> None:
    """Medians, with bars from the least to the greatest."""
    medians = [found["median"] for found in spreads]
    below = [found["median"] - found["least"] for found in spreads]
    above = [found["greatest"] - found["median"] for found in spreads]
    axis.errorbar(counts, medians, yerr=[below, above], marker="o", capsize=3, label=label)


def _axis(axis: Any, counts: Sequence[int], label: str) -> None:
    axis.set_xscale("log", base=2)
    axis.set_xticks(counts, [str(count) for count in counts])
    axis.set_xlabel("in flight")
    axis.set_ylabel(label)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
