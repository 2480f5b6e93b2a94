"""`python -m runtime serve …`: the same verbs as `assay runtime`, without the rest of `assay`."""

from runtime.cli import runtime_app

if __name__ == "__main__":
    runtime_app(prog_name="python -m runtime")
