"""Weights in 8 bits: the numbers they stand for, and that packing them changes no bit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies

from runtime.packages import REFERENCE_PROFILE, REFERENCE_Q8_PROFILE, PackageError, pack
from runtime.reference.engine import ReferenceEngine
from runtime.reference.model import Model
from runtime.reference.weights import load_weights, quantize
from runtime.tensors import GgufTensors, TensorSource
from tests.runtime.test_forward import logits_in_blocks, tokens_of
from tests.runtime.test_reference_engine import WARM, complete, verify, without_fault
from tests.runtime.tiny_model import TinyModel, write_directory, write_gguf

SHAPE = TinyModel(width=64, heads=4, kv_heads=2, feed_width=96, layers=2)
BOTH = (REFERENCE_PROFILE, REFERENCE_Q8_PROFILE)


class AsFloats:
    """Another source's tensors as float32, rounded to 8 bits and back if asked."""

    def __init__(self, source: TensorSource, rounded: bool = False) -> None:
        self._source = source
        self._rounded = rounded

    def names(self) -> set[str]:
        return self._source.names()

    def read(self, name: str) -> np.ndarray:
        values = self._source.read(name)
        if not self._rounded or values.ndim == 1:
            return values
        found = quantize(values)
        back: np.ndarray = found.quants.astype(np.float32) * np.repeat(found.scales, 32, axis=1)
        return back


def same_bits(first: Model, second: Model) -> bool:
    tokens = tokens_of(first, 50)
    expected = logits_in_blocks(second, tokens, 1)
    return all(
        logits_in_blocks(first, tokens, block).tobytes() == expected.tobytes()
        for block in (1, 2, 7, 50)
    )


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
def test_q8_matrices_of_a_file_stay_packed_and_give_the_bits_of_their_floats(
    tmp_path: Path, threads: int, tied: bool
) -> None:
    shape = replace(SHAPE, stored_as_q8=True, tied=tied)
    package = pack(write_gguf(shape, tmp_path / "tiny.gguf"), tmp_path / "package")
    config, source = package.config(), package.tensors()
    assert isinstance(source, GgufTensors)
    packed = Model(config, load_weights(config, source), threads)
    floats = Model(config, load_weights(config, AsFloats(source)))
    assert packed.weight_bytes * 32 == floats.weight_bytes * 9
    assert same_bits(packed, floats)
    packed.close()


@pytest.mark.parametrize("threads", [1, 2])
def test_the_eight_bit_profile_computes_with_the_rounded_weights(
    tmp_path: Path, threads: int
) -> None:
    package = pack(write_directory(SHAPE, tmp_path / "source"), tmp_path / "package")
    config, source = package.config(), package.tensors()
    packed = Model(config, load_weights(config, source, None, REFERENCE_Q8_PROFILE), threads)
    rounded = Model(config, load_weights(config, AsFloats(source, rounded=True)))
    floats = Model(config, load_weights(config, source))
    assert packed.weight_bytes * 32 == floats.weight_bytes * 9
    assert same_bits(packed, rounded)
    assert not same_bits(packed, floats)
    packed.close()


def test_the_eight_bit_profile_takes_weights_stored_so_as_they_are(tmp_path: Path) -> None:
    shape = replace(SHAPE, stored_as_q8=True)
    package = pack(write_gguf(shape, tmp_path / "tiny.gguf"), tmp_path / "package")
    config, source = package.config(), package.tensors()
    first = Model(config, load_weights(config, source, None, REFERENCE_Q8_PROFILE))
    assert same_bits(first, Model(config, load_weights(config, source)))


def test_rows_no_multiple_of_a_block_are_refused_by_the_eight_bit_profile(tmp_path: Path) -> None:
    package = pack(write_gguf(TinyModel(), tmp_path / "tiny.gguf"), tmp_path / "package")
    with pytest.raises(PackageError, match="has 48 inputs; reference-q8-1 needs a multiple of 32"):
        load_weights(package.config(), package.tensors(), None, REFERENCE_Q8_PROFILE)


def test_a_package_says_which_profiles_it_is_for(tmp_path: Path) -> None:
    package = pack(write_gguf(SHAPE, tmp_path / "a"), tmp_path / "package", engine_profiles=BOTH)
    floats = ReferenceEngine.load(package)
    eight = ReferenceEngine.load(package, profile=REFERENCE_Q8_PROFILE)
    assert (floats.profile, eight.profile) == BOTH
    claim = complete(eight, WARM)
    assert claim.engine_profile == REFERENCE_Q8_PROFILE
    assert without_fault(verify(eight, claim).scores)
    assert verify(floats, claim).scores.distance_max > 0
    only = replace(package, manifest=replace(package.manifest, engine_profiles=BOTH[1:]))
    assert ReferenceEngine.load(only).profile == REFERENCE_Q8_PROFILE
    with pytest.raises(PackageError, match="this engine is reference-float32-1"):
        ReferenceEngine.load(only, profile=REFERENCE_PROFILE)
    with pytest.raises(PackageError, match="this engine is vllm-1"):
        ReferenceEngine.load(package, profile="vllm-1")


@settings(max_examples=50)
@given(
    numpy_strategies.arrays(
        np.float32, (2, 64), elements=st.floats(-(2.0**100), 2.0**100, width=32)
    )
)
def test_rounding_to_eight_bits_errs_by_half_a_step_at_most(rows: np.ndarray) -> None:
    found = quantize(rows)
    scales = np.repeat(found.scales, 32, axis=1).astype(np.float64)
    error = np.abs(rows - scales * found.quants)
    # Below the smallest normal number a scale has few bits, and may be zero.
    normal = scales >= 2.0**-126
    assert (error[normal] <= scales[normal] * (0.5 + 2.0**-15)).all()
    assert np.abs(rows[~normal]).max(initial=0.0) <= 2.0**-118
    greatest = np.abs(found.quants.astype(np.int64)).reshape(2, 2, 32).max(axis=2)
    assert (greatest[found.scales >= 2.0**-126] == 127).all()


def test_rounding_is_to_the_nearest_and_of_two_as_near_to_the_even_one() -> None:
    row = np.zeros((1, 32), np.float32)
    row[0, :6] = (127.0, 0.5, 1.5, -2.5, 2.51, -0.49)
    found = quantize(row)
    assert found.scales.tolist() == [[1.0]]
    assert found.quants[0, :7].tolist() == [127, 0, 2, -2, 3, 0, 0]
