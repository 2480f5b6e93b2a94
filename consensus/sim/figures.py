"""Figures to files, the same bytes for the same figure. Importing this needs the extra `plots`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import matplotlib
from matplotlib.figure import Figure

FORMATS: Final = ("png", "svg")
DOTS_PER_INCH: Final = 110


def save_figures(figures: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Write each figure in every format under its name; the files' paths. Makes the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    # No date, and ids of parts that follow from a fixed word.
    with matplotlib.rc_context({"svg.hashsalt": "assay"}):
        for name, figure in figures.items():
            for form in FORMATS:
                path = folder / f"{name}.{form}"
                metadata = {"Date": None} if form == "svg" else {"Software": None}
                figure.savefig(path, dpi=DOTS_PER_INCH, metadata=metadata)
                written.append(path)
    return written
