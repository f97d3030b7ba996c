"""Specifies which zarr arrays and specs of a T5X checkpoint are refused."""

import json
import re

import numpy as np
import pytest

from tests import t5x_files
from tests.t5x_files import CONFIG, EMBEDDING, opening
from xprompt_jax.types import UserError
from xprompt_jax.weights import t5x_native

# An array of 4 chunks with 3 rows each.
ZARR = "target.token_embedder.embedding"


def embedding_in_zarr(folder, **kwargs):
  return t5x_files.write(
      folder,
      t5x_files.random_arrays(),
      in_zarr=lambda name: name == EMBEDDING,
      **kwargs,
  )


def reading(folder):
  """The message of reading an embedding that could be opened, one line."""
  leaf = t5x_native.open_checkpoint(str(folder), CONFIG)[EMBEDDING]
  with pytest.raises(UserError) as error:
    leaf.whole()
  assert "\n" not in str(error.value)
  return str(error.value)


# Specs.


def changed(**fields):
  return lambda spec: {**spec, **fields}


def in_part(part, **fields):
  return lambda spec: {**spec, part: {**spec[part], **fields}}


INSIDE = "expected a folder inside the checkpoint's"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (changed(driver="n5"), "driver: found 'n5', expected 'zarr'"),
        (
            in_part("kvstore", driver="http"),
            "kvstore driver: found 'http', expected one of gfile, file, gcs",
        ),
        (
            changed(kvstore="file:///etc/"),
            "kvstore driver: found None, expected one of gfile, file, gcs",
        ),
        (in_part("kvstore", path="../x"), f"path: found '../x', {INSIDE}"),
        (
            in_part("kvstore", path="a/../../x"),
            f"path: found 'a/../../x', {INSIDE}",
        ),
        (in_part("kvstore", path="/etc"), f"path: found '/etc', {INSIDE}"),
        (in_part("kvstore", path="./x"), f"path: found './x', {INSIDE}"),
        (
            in_part("kvstore", path="gs://b/x"),
            f"path: found 'gs://b/x', {INSIDE}",
        ),
        (in_part("kvstore", path=""), f"path: found None, {INSIDE}"),
        (in_part("kvstore", path="a\nb"), f"path: found 'a\\nb', {INSIDE}"),
        (in_part("kvstore", path=3), f"path: found 3, {INSIDE}"),
        (
            in_part("metadata", shape=None),
            "shape: found None, expected a list of sizes",
        ),
        (
            in_part("metadata", shape=[12, -8]),
            "shape: found [12, -8], expected a list of sizes",
        ),
        (
            changed(metadata=None),
            "shape: found None, expected a list of sizes",
        ),
        (in_part("metadata", dtype=None), "dtype: found None, expected one"),
        (
            changed(dtype="bfloat16"),
            "dtype: found 'bfloat16 and float32', expected one",
        ),
        (
            changed(transform={"input_inclusive_min": [1, 0]}),
            "transform: found {'input_inclusive_min': [1, 0]}, expected none, or"
            " one that keeps the whole array",
        ),
        (
            changed(transform={"output": []}),
            "transform: found {'output': []}, expected none, or one that keeps"
            " the whole array",
        ),
    ],
)
def test_specs_that_t5x_does_not_write(tmp_path, change, problem):
  embedding_in_zarr(tmp_path, change=change)
  assert opening(tmp_path) == f"{tmp_path}: {EMBEDDING}: {problem}"


@pytest.mark.parametrize(
    ("found", "name"), [("<u2", "uint16"), ("<i4", "int32"), ("|V4", "void32")]
)
def test_dtypes_that_no_t5_is_stored_in(tmp_path, found, name):
  embedding_in_zarr(tmp_path, change=in_part("metadata", dtype=found))
  assert opening(tmp_path) == (
      f"{tmp_path}/{ZARR}: {EMBEDDING}: found dtype {name}, expected one of"
      " float32, bfloat16, float16"
  )


def test_a_link_that_leads_out_of_the_folder(tmp_path):
  embedding_in_zarr(tmp_path / "run")
  (tmp_path / "run" / ZARR).rename(tmp_path / "elsewhere")
  (tmp_path / "run" / ZARR).symlink_to(tmp_path / "elsewhere")
  assert reading(tmp_path / "run") == (
      f"{tmp_path}/run/{ZARR}: {EMBEDDING}: found a link that leads out of the"
      " checkpoint's folder"
  )


# Chunks.


def test_a_missing_chunk(tmp_path):
  (embedding_in_zarr(tmp_path) / ZARR / "2.0").unlink()
  assert reading(tmp_path) == (
      f"{tmp_path}/{ZARR}: {EMBEDDING}: chunk 2.0 is missing"
  )


def test_a_truncated_chunk(tmp_path):
  chunk = embedding_in_zarr(tmp_path) / ZARR / "2.0"
  whole = chunk.read_bytes()
  chunk.write_bytes(whole[:-1])
  assert reading(tmp_path) == (
      f"{tmp_path}/{ZARR}: {EMBEDDING}: chunk 2.0 is damaged: its end is not"
      " gzip's"
  )
  leaf = t5x_native.open_checkpoint(str(tmp_path), CONFIG)[EMBEDDING]
  for length in range(len(whole)):
    chunk.write_bytes(whole[:length])
    with pytest.raises(UserError, match=f"{ZARR}: {EMBEDDING}: chunk 2.0"):
      leaf.whole()


def test_every_flipped_byte_of_a_chunk(tmp_path):
  chunk = embedding_in_zarr(tmp_path) / ZARR / "2.0"
  whole = chunk.read_bytes()
  leaf = t5x_native.open_checkpoint(str(tmp_path), CONFIG)[EMBEDDING]
  right = leaf.whole()
  unnoticed = []
  for place in range(len(whole)):
    flipped = bytearray(whole)
    flipped[place] ^= 0x40
    chunk.write_bytes(flipped)
    try:
      np.testing.assert_array_equal(leaf.whole(), right)
      unnoticed.append(place)
    except UserError as error:
      message = str(error)
  # gzip's time, level and system, and bits that deflate does not use.
  assert set(unnoticed) <= set(range(3, 11))
  assert re.fullmatch(
      re.escape(f"{tmp_path}/{ZARR}: {EMBEDDING}: ")
      + "(found a damaged chunk: .*|chunk 2.0 is damaged: .*)",
      message,
  )


def test_a_missing_zarray(tmp_path):
  (embedding_in_zarr(tmp_path) / ZARR / ".zarray").unlink()
  assert reading(tmp_path) == (
      f"{tmp_path}/{ZARR}: {EMBEDDING}: cannot be opened: Error opening"
      f' "zarr" driver: Metadata at local file "{tmp_path}/{ZARR}/.zarray"'
      " does not exist"
  )


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"shape": [12, 9]}, "(12, 9) float32"),
        ({"shape": [9, 8]}, "(9, 8) float32"),
        ({"dtype": "<i4"}, "(12, 8) int32"),
        ({"shape": [12], "chunks": [3]}, "(12,) float32"),
    ],
)
def test_another_zarray(tmp_path, fields, found):
  file = embedding_in_zarr(tmp_path) / ZARR / ".zarray"
  file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))
  assert reading(tmp_path) == (
      f"{tmp_path}/{ZARR}: {EMBEDDING}: found {found} in .zarray, expected"
      " (12, 8) float32 as in the checkpoint"
  )


def test_a_damaged_zarray(tmp_path):
  (embedding_in_zarr(tmp_path) / ZARR / ".zarray").write_text("{")
  assert "Invalid JSON" in reading(tmp_path)
