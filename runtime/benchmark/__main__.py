"""`python -m runtime.benchmark`, for environments without the `assay` command, as vLLM's is."""

import typer

from runtime.benchmark.cli import runtime_command

if __name__ == "__main__":
    typer.run(runtime_command)
