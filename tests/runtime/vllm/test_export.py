"""What vLLM is given to load: the package's own values, checked at every start."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from runtime.cli import runtime_app
from runtime.model_config import ModelConfig
from runtime.packages import MANIFEST_NAME, ModelPackage, PackageError, load, pack
from runtime.tensors import SafetensorsTensors
from runtime.vllm_engine.export import (
    EXPORT_NAME,
    WEIGHTS_NAME,
    check_quantization,
    export,
    vllm_config_json,
)
from tests.runtime.tiny_model import TinyModel, tiny_package, write_directory, write_gguf


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return tiny_package(tmp_path_factory.mktemp("packages"))


def with_manifest(
    package: ModelPackage, folder: Path, edit: Callable[[dict[str, Any]], object]
) -> Path:
    copy = Path(shutil.copytree(package.path, folder / "copy"))
    values = json.loads((copy / MANIFEST_NAME).read_bytes())
    edit(values)
    (copy / MANIFEST_NAME).write_text(json.dumps(values))
    return copy


def serve(package: Path, exports: Path, *options: str) -> tuple[int, dict[str, str]]:
    arguments = ["serve", "--engine", "vllm", "--model", str(package), "--json"]
    arguments += ["--export-directory", str(exports), *options]
    result = CliRunner().invoke(runtime_app, arguments)
    return result.exit_code, json.loads(result.stderr.splitlines()[-1])


def test_the_exported_weights_are_the_packages_own_values(
    packed: ModelPackage, tmp_path: Path
) -> None:
    folder = export(packed, tmp_path)
    assert folder == tmp_path / packed.model_id.hex()
    written, source = SafetensorsTensors([folder / WEIGHTS_NAME]), packed.tensors()
    assert written.names() == source.names()
    for name in source.names():
        assert np.array_equal(written.read(name), source.read(name)), name


def test_safetensors_are_linked_and_not_copied(tmp_path: Path) -> None:
    package = pack(write_directory(TinyModel(), tmp_path / "hf"), tmp_path / "package")
    folder = export(package, tmp_path / "exports")
    weights = [path for path in folder.iterdir() if path.suffix == ".safetensors"]
    assert weights
    assert all(path.resolve().parent == package.path.resolve() for path in weights)
    assert export(package, tmp_path / "exports") == folder


def test_an_export_is_made_once(packed: ModelPackage, tmp_path: Path) -> None:
    weights = export(packed, tmp_path) / WEIGHTS_NAME
    made_ns = weights.stat().st_mtime_ns
    export(packed, tmp_path)
    assert weights.stat().st_mtime_ns == made_ns


@pytest.mark.parametrize("name", [WEIGHTS_NAME, "config.json", "tokenizer.json", EXPORT_NAME])
def test_an_export_that_was_changed_is_made_again(
    name: str, packed: ModelPackage, tmp_path: Path
) -> None:
    file = export(packed, tmp_path) / name
    right = file.read_bytes()
    file.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    export(packed, tmp_path)
    assert file.read_bytes() == right


def test_a_file_too_many_or_too_few_has_the_export_made_again(
    packed: ModelPackage, tmp_path: Path
) -> None:
    folder = export(packed, tmp_path)
    (folder / "more.safetensors").write_bytes(b"")
    assert not (export(packed, tmp_path) / "more.safetensors").exists()
    (folder / WEIGHTS_NAME).unlink()
    assert (export(packed, tmp_path) / WEIGHTS_NAME).exists()


def test_a_failed_export_leaves_nothing_behind(tmp_path: Path) -> None:
    config = TinyModel(rope_divisors=tuple(1.0 + pair for pair in range(8)))
    source = write_gguf(config, tmp_path / "model.gguf")
    package = pack(source, tmp_path / "package")
    with pytest.raises(PackageError, match="stretched rotary embeddings"):
        export(package, tmp_path / "exports")
    assert list((tmp_path / "exports").iterdir()) == []


def test_vllm_is_told_the_shape_of_the_model(packed: ModelPackage) -> None:
    config: ModelConfig = packed.config()
    told = json.loads(vllm_config_json(config))
    assert told["architectures"] == ["LlamaForCausalLM"]
    assert told["num_hidden_layers"] == config.layers
    assert told["num_key_value_heads"] == config.kv_heads
    assert told["max_position_embeddings"] > config.context_tokens
    assert told["rope_parameters"]["rope_theta"] == config.rope_base
    assert told["tie_word_embeddings"] is config.tied_embeddings


def test_weights_quantized_other_than_the_manifest_says_are_refused(
    packed: ModelPackage, tmp_path: Path
) -> None:
    check_quantization(packed)
    copy = with_manifest(packed, tmp_path, lambda values: values.update(quantization="Q4_0"))
    with pytest.raises(PackageError, match=r"the weights are F32, the manifest says Q4_0"):
        check_quantization(load(copy))
    code, error = serve(copy, tmp_path / "exports")
    assert (code, error["reason"]) == (1, "BAD_PACKAGE")
    assert not (tmp_path / "exports").exists()


def test_a_package_with_a_changed_byte_is_refused_before_vllm_is_loaded(
    packed: ModelPackage, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(packed.path, tmp_path / "copy"))
    data = bytearray((copy / "model.gguf").read_bytes())
    data[-1] ^= 1
    (copy / "model.gguf").write_bytes(data)
    code, error = serve(copy, tmp_path / "exports")
    assert code == 1
    assert error["detail"] == "model.gguf: SHA-256 differs from the manifest's"


def test_vllm_may_not_quantize_what_the_manifest_does_not(
    packed: ModelPackage, tmp_path: Path
) -> None:
    code, error = serve(packed.path, tmp_path / "exports", "--quantization", "fp8")
    assert (code, error["reason"]) == (2, "BAD_SETTINGS")
    assert error["detail"].startswith("--quantization is fp8, the package's manifest says F32")
