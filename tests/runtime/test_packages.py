import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ext.hashing import tagged_hash
from runtime.packages import MANIFEST_NAME, ModelPackage, PackageError, load, pack
from tests.runtime.tiny_model import (
    TinyModel,
    tiny_package,
    write_directory,
    write_gguf,
    write_safetensors,
)

FILES = ["chat_template.jinja", "config.json", "model.gguf", "tokenizer.json"]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return tiny_package(tmp_path_factory.mktemp("packages"))


@pytest.fixture
def copy(packed: ModelPackage, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packed.path, tmp_path / "copy"))


def edit_manifest(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    path = folder / MANIFEST_NAME
    values = json.loads(path.read_bytes())
    edit(values)
    path.write_text(json.dumps(values))


def test_a_packed_model_loads_and_its_id_is_the_hash_of_the_manifest(packed: ModelPackage) -> None:
    again = load(packed.path)
    assert again == packed
    manifest_bytes = (packed.path / MANIFEST_NAME).read_bytes()
    assert again.model_id == tagged_hash(b"model", manifest_bytes)
    assert [file.name for file in again.manifest.files] == FILES
    assert again.manifest.vocabulary == 261
    assert again.manifest.engine_profiles == ("reference-float32-1",)
    sizes = sum(values.size for values in TinyModel().tensors().values())
    assert again.manifest.parameters == sizes


def test_packing_twice_gives_the_same_model_id(packed: ModelPackage, tmp_path: Path) -> None:
    assert tiny_package(tmp_path).model_id == packed.model_id


def test_progress_ends_at_all_bytes(packed: ModelPackage) -> None:
    seen: list[tuple[str, int, int]] = []
    load(packed.path, lambda what, done, total: seen.append((what, done, total)))
    assert seen[-1][1] == seen[-1][2] == sum(file.size_bytes for file in packed.manifest.files)


@pytest.mark.parametrize("name", FILES)
def test_one_changed_byte_is_found_and_the_file_named(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(PackageError, match=f"^{name}: SHA-256 differs from the manifest's$"):
        load(copy)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_shortened_or_linked_file_is_named(copy: Path, tmp_path: Path, name: str) -> None:
    data = (copy / name).read_bytes()
    (copy / name).write_bytes(data[:-1])
    with pytest.raises(PackageError, match=f"^{name}: {len(data) - 1} bytes, the manifest says"):
        load(copy)
    (copy / name).unlink()
    with pytest.raises(PackageError, match=f"^{name}: named by the manifest but missing$"):
        load(copy)
    (tmp_path / "elsewhere").write_bytes(data)
    (copy / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PackageError, match=f"^{name}: not a regular file$"):
        load(copy)


def test_a_file_too_many_is_named(copy: Path) -> None:
    (copy / "extra.bin").write_bytes(b"")
    with pytest.raises(PackageError, match=r"^extra\.bin: not named by the manifest; remove it$"):
        load(copy)


@pytest.mark.parametrize("name", ["../config.json", "/etc/passwd", "a/b", "", ".hidden", "x\n"])
def test_a_name_that_leaves_the_package_is_refused(copy: Path, name: str) -> None:
    edit_manifest(copy, lambda values: values["files"][0].update(name=name))
    with pytest.raises(PackageError, match="is no name for a file of a package"):
        load(copy)


@pytest.mark.parametrize(
    "edit",
    [
        lambda values: values.update(format=2),
        lambda values: values.update(extra=1),
        lambda values: values.pop("name"),
        lambda values: values.update(vocabulary="261"),
        lambda values: values.update(vocabulary=True),
        lambda values: values.update(vocabulary=260),
        lambda values: values.update(engine_profiles=[]),
        lambda values: values.update(files=values["files"][1:]),
        lambda values: values["files"].append(values["files"][0]),
        lambda values: values["files"][0].update(sha256="00"),
        lambda values: values["files"][0].update(size_bytes=-1),
        lambda values: values["files"].append(5),
    ],
)
def test_a_manifest_of_another_form_is_refused(
    copy: Path, edit: Callable[[dict[str, Any]], object]
) -> None:
    edit_manifest(copy, edit)
    with pytest.raises(PackageError):
        load(copy)


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b"null"])
def test_a_manifest_that_is_no_json_object_is_refused(copy: Path, data: bytes) -> None:
    (copy / MANIFEST_NAME).write_bytes(data)
    with pytest.raises(PackageError, match=r"^manifest\.json: "):
        load(copy)


def test_a_directory_without_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="cannot be read"):
        load(tmp_path)


def test_packing_refuses_a_place_that_is_taken(packed: ModelPackage, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="exists already"):
        pack(tmp_path, packed.path)
    with pytest.raises(PackageError, match="no such file or directory"):
        pack(tmp_path / "nothing", tmp_path / "output")


def test_a_failed_pack_leaves_nothing_behind(tmp_path: Path) -> None:
    source = tmp_path / "broken.gguf"
    source.write_bytes(b"GGUF" + bytes(40))
    with pytest.raises(PackageError):
        pack(source, tmp_path / "output")
    assert [path.name for path in tmp_path.iterdir()] == ["broken.gguf"]


def test_a_damaged_gguf_file_is_refused_or_read_but_never_crashes(tmp_path: Path) -> None:
    whole = write_gguf(TinyModel(layers=1), tmp_path / "tiny.gguf").read_bytes()
    generator = random.Random(11)
    refused = 0
    for attempt in range(150):
        data = bytearray(whole)
        if attempt % 3 == 0:
            del data[generator.randrange(len(data)) :]
        else:
            for _ in range(3):
                data[generator.randrange(6000)] = generator.randrange(256)
        (tmp_path / "damaged.gguf").write_bytes(data)
        try:
            package = pack(tmp_path / "damaged.gguf", tmp_path / f"output-{attempt}")
        except PackageError:
            refused += 1
        else:
            assert package.manifest.vocabulary >= 1
    assert refused >= 50


def test_weights_of_gguf_and_of_a_directory_are_the_same_values(tmp_path: Path) -> None:
    model = TinyModel(bias=False)
    sources = [
        pack(write_gguf(model, tmp_path / "tiny.gguf"), tmp_path / "a").tensors(),
        pack(write_directory(model, tmp_path / "directory"), tmp_path / "b").tensors(),
    ]
    expected = model.tensors()
    for source in sources:
        assert source.names() == set(expected)
        for name, values in expected.items():
            assert np.array_equal(source.read(name), values), name


@pytest.mark.parametrize(("kind", "bits"), [("F16", np.float16), ("BF16", np.uint16)])
def test_sixteen_bit_safetensors_widen_exactly(tmp_path: Path, kind: str, bits: type) -> None:
    folder = write_directory(TinyModel(), tmp_path / "directory")
    values = np.array([[1.5, -2.0, 0.15625, 3.0]], np.float32)
    stored: Any = (
        values.astype(bits) if kind == "F16" else (values.view(np.uint32) >> 16).astype(bits)
    )
    header = {"x": {"dtype": kind, "shape": [1, 4], "data_offsets": [0, 8]}}
    text = json.dumps(header).encode()
    data = len(text).to_bytes(8, "little") + text + stored.tobytes()
    (folder / "model.safetensors").write_bytes(data)
    package = pack(folder, tmp_path / "package")
    assert np.array_equal(package.tensors().read("x"), values)


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"model_type": "mamba"}, "model_type 'mamba' is not supported"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "scaled by rule 'yarn' are not supported"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "'factor' is missing"),
        (
            {
                "rope_scaling": {
                    "rope_type": "llama3",
                    "factor": 8,
                    "low_freq_factor": 4,
                    "high_freq_factor": 4,
                    "original_max_position_embeddings": 64,
                }
            },
            "make no sense",
        ),
        (
            {"model_type": "mistral", "sliding_window": 64},
            "sliding window attention is not supported",
        ),
        ({"attention_bias": True}, "attention_bias"),
        ({"hidden_act": "gelu"}, "only the silu activation"),
        ({"num_key_value_heads": 4}, "do not divide"),
        ({"hidden_size": 50}, "multiple of 16"),
        ({"num_hidden_layers": 0}, "layers is 0"),
        ({"eos_token_id": None}, "config.json"),
        ({"eos_token_id": 9999}, "outside the vocabulary"),
        ({"vocab_size": "many"}, "wrong type"),
    ],
)
def test_a_directory_no_engine_could_run_is_refused(
    tmp_path: Path, change: dict[str, Any], detail: str
) -> None:
    folder = write_directory(TinyModel(), tmp_path / "directory")
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, **change}))
    with pytest.raises(PackageError, match=detail):
        pack(folder, tmp_path / "package")


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [4], "data_offsets": [0, 12]},
        {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]},
        {"dtype": "F32", "shape": [-4], "data_offsets": [16, 0]},
        {"dtype": "I8", "shape": [16], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": "4", "data_offsets": [0]},
        7,
    ],
)
def test_a_safetensors_header_that_lies_is_refused(tmp_path: Path, entry: Any) -> None:
    folder = write_directory(TinyModel(), tmp_path / "directory")
    text = json.dumps({"x": entry}).encode()
    data = len(text).to_bytes(8, "little") + text + bytes(16)
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(PackageError, match=r"model\.safetensors: "):
        pack(folder, tmp_path / "package").tensors()


def test_the_same_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    folder = write_directory(TinyModel(), tmp_path / "directory")
    write_safetensors({"model.norm.weight": np.ones(48, np.float32)}, folder / "second.safetensors")
    with pytest.raises(PackageError, match="is also in another file"):
        pack(folder, tmp_path / "package").tensors()
