"""Builds what cannot be written by hand: the C extensions of ``ext`` and the stubs of ``assay.v1``.

The stubs are generated into ``assay/v1`` from ``proto/assay/v1/*.proto`` and never committed. Both
are made by every way of building: ``pip install .``, ``pip install -e .`` and
``python setup.py build_ext --inplace``.
"""

import os
import re
import shutil
import sys
import tempfile
from importlib import resources
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ROOT = Path(__file__).resolve().parent
SCHEMAS = Path("proto/assay/v1")
STUBS = Path("assay/v1")
STUBS_DOCSTRING = '"""Generated from proto/assay/v1 by setup.py; edit the schemas instead."""\n'
NATIVE = "ext/native"
INCLUDED = re.compile(r'^#include "([^"]+)"', re.MULTILINE)
COMPILER_FLAGS = ["-O3", "-std=c11", "-fno-strict-aliasing", "-Wall", "-Wextra"]
CYTHON_DIRECTIVES = {
    "language_level": "3",
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "embedsignature": True,
    "warn.unused": True,
}
# Extension module -> its C sources. A shared source is compiled into each module that uses it.
NATIVE_SOURCES = {
    "ed25519": [
        *("ed25519", "ed25519_keys", "edwards25519", "edwards25519_avx2", "edwards25519_ifma"),
        *("field25519", "multiples25519", "scalar25519", "sha512"),
    ],
    "bodies": ["bodies", "job_operations", "sha256", "wire_reader"],
    "hashing": ["sha256"],
    "ledger": ["accounts", "key_index", "memory", "merkle", "sha256", "window"],
    "merkle": ["leaves", "merkle", "sha256"],
    "packing": [],
    "rows": ["merkle", "row_tree", "sha256"],
    "tables": [],
    "transactions": ["sha256", "transactions"],
    "transfers": [
        *("accounts", "key_index", "leaves", "memory", "merkle", "sha256", "transfers", "window"),
    ],
    "tuples": [],
}


def find_protoc_plugin(name: str) -> str:
    """Path of a protoc plugin, looked for beside the interpreter first (it may not be on PATH)."""
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which(name, path=search)
    if found is None:
        raise SystemExit(f"{name} is not installed: pip install mypy-protobuf")
    return found


def generate_stubs() -> None:
    """Generate ``assay/v1`` from the schemas, touching only files whose text changed."""
    from grpc_tools import protoc

    schemas = sorted((ROOT / SCHEMAS).glob("*.proto"))
    if not schemas:
        raise SystemExit(f"no schemas in {SCHEMAS}: the source tree is incomplete")
    with tempfile.TemporaryDirectory() as scratch:
        arguments = [
            "protoc",
            f"-I{ROOT / 'proto'}",
            f"-I{resources.files('grpc_tools') / '_proto'}",
            f"--plugin=protoc-gen-mypy={find_protoc_plugin('protoc-gen-mypy')}",
            f"--plugin=protoc-gen-mypy_grpc={find_protoc_plugin('protoc-gen-mypy_grpc')}",
            f"--python_out={scratch}",
            f"--grpc_python_out={scratch}",
            f"--mypy_out=quiet:{scratch}",
            f"--mypy_grpc_out=quiet:{scratch}",
            *(str(schema) for schema in schemas),
        ]
        if protoc.main(arguments) != 0:
            raise SystemExit("protoc refused a schema; its message stands above")
        generated = {path.name: path.read_bytes() for path in (Path(scratch) / STUBS).iterdir()}
    generated["__init__.py"] = STUBS_DOCSTRING.encode()
    generated["py.typed"] = b""
    # The schemas travel with the stubs, so that an installed wheel carries them too.
    generated |= {schema.name: schema.read_bytes() for schema in schemas}
    install_generated(ROOT / STUBS, generated)


def install_generated(directory: Path, files: dict[str, bytes]) -> None:
    """Make ``directory`` hold exactly ``files``; an unchanged file keeps its time stamp."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        target = directory / name
        if not target.exists() or target.read_bytes() != content:
            replacement = target.with_name(f".{name}.new")
            replacement.write_bytes(content)
            replacement.replace(target)
    for path in directory.iterdir():
        if path.is_file() and path.name not in files:
            path.unlink()


class BuildPython(build_py):
    """``build_py`` that generates the stubs first."""

    def run(self) -> None:
        generate_stubs()
        super().run()


class BuildExtensions(build_ext):
    """``build_ext`` that generates the stubs first, so that one command builds everything."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def run(self) -> None:
        generate_stubs()
        super().run()


class SourceDistribution(sdist):
    """``sdist`` that generates the stubs first: the package list names ``assay.v1``."""

    def run(self) -> None:
        generate_stubs()
        super().run()


def headers_of(sources: list[str]) -> list[str]:
    """The headers of ``ext/native`` that these sources include, through others too: a change of
    any other one needs no compiling."""
    found: set[Path] = set()
    left = [ROOT / source for source in sources]
    while left:
        included = INCLUDED.findall(left.pop().read_text())
        fresh = {path for name in included if (path := ROOT / NATIVE / name).exists()} - found
        found |= fresh
        left += fresh
    return sorted(str(path.relative_to(ROOT)) for path in found)


def extension(name: str, natives: list[str]) -> Extension:
    """One module of ``ext``. What its .pyx takes from headers is seen to by Cython."""
    sources = [f"{NATIVE}/{native}.c" for native in natives]
    return Extension(
        f"ext.{name}",
        [f"ext/{name}.pyx", *sources],
        include_dirs=[NATIVE],
        depends=headers_of(sources),
        extra_compile_args=COMPILER_FLAGS,
    )


def extensions() -> list[Extension]:
    """The Cython modules of ``ext``, translated to C."""
    from Cython.Build import cythonize

    return cythonize(
        [extension(name, natives) for name, natives in NATIVE_SOURCES.items()],
        build_dir="build/cython",
        compiler_directives=CYTHON_DIRECTIVES,
        show_all_warnings=False,
        quiet=True,
    )


def packages() -> list[str]:
    """Every package of the distribution; ``assay.v1`` is named because it may not exist yet."""
    (ROOT / STUBS).mkdir(parents=True, exist_ok=True)  # egg_info wants each directory to be there
    sources = find_packages(
        include=["chain*", "consensus*", "ext*", "runtime*"], exclude=["*.native*"]
    )
    return [*sources, "assay", "assay.v1"]


setup(
    packages=packages(),
    package_data={
        "": ["py.typed", "*.pyi", "*.html", "*.css", "*.js", "*.json"],
        "assay.v1": ["*.proto"],
        "chain.explorer": ["page/*"],
    },
    include_package_data=False,
    ext_modules=extensions(),
    cmdclass={"build_py": BuildPython, "build_ext": BuildExtensions, "sdist": SourceDistribution},
)
