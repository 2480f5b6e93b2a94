"""`python -m runtime.calibration`, for environments without the `assay` command, as vLLM's is."""

import typer

from runtime.calibration.cli import calibrate_command

if __name__ == "__main__":
    typer.run(calibrate_command)
