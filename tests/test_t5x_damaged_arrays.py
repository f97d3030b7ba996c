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
            in_part("kvstore", path="target.token_embedder.embeddinh"),
            "path: found 'target.token_embedder.embeddinh', expected"
            " 'target.token_embedder.embedding'",
        ),
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
            changed(dtype=["float32"]),
            "dtype: found ['float32'], expected text",
        ),
        (
            in_part("metadata", order="F"),
            "order: found 'F', expected 'C'",
        ),
        (
            in_part("metadata", chunks=[3, 0]),
            "chunks: found [3, 0], expected a list of sizes",
        ),
        (
            in_part("metadata", compressor="gzip"),
            "compressor: found 'gzip', expected none, or one with an id",
        ),
        (
            in_part("metadata", dimension_separator="-"),
            "dimension_separator: found '-', expected '.' or '/'",
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
    ("found", "name"),
    [
        ("<u2", "uint16"),
        ("<i4", "int32"),
        ("|V4", "void32"),
        (">f4", ">f4"),
        ("=f4", "=f4"),
    ],
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


@pytest.mark.parametrize("name", [".zarray", "2.0"])
@pytest.mark.parametrize("target", ["elsewhere/blobs/x", "away"])
def test_a_link_of_a_file_that_leads_out_of_the_folder(tmp_path, name, target):
  file = embedding_in_zarr(tmp_path / "run") / ZARR / name
  (tmp_path / target).parent.mkdir(parents=True, exist_ok=True)
  file.rename(tmp_path / target)
  file.symlink_to(tmp_path / target)
  assert reading(tmp_path / "run") == (
      f"{tmp_path}/run/{ZARR}: {EMBEDDING}: {name} is a link that leads out of"
      " the checkpoint's folder"
  )


def test_a_link_of_the_msgpack_that_leads_out_of_the_folder(tmp_path):
  file = embedding_in_zarr(tmp_path / "run") / "checkpoint"
  file.rename(tmp_path / "elsewhere")
  file.symlink_to(tmp_path / "elsewhere")
  assert opening(tmp_path / "run") == (
      f"{file}: found a link that leads out of the checkpoint's folder"
  )


def test_a_chunk_that_links_to_itself(tmp_path):
  chunk = embedding_in_zarr(tmp_path) / ZARR / "2.0"
  chunk.unlink()
  chunk.symlink_to("2.0")
  assert reading(tmp_path) == (
      f"{tmp_path}/{ZARR}: {EMBEDDING}: chunk 2.0: Too many levels of symbolic"
      " links"
  )


def test_a_parameter_that_names_the_array_of_another(tmp_path):
  t5x_files.write(tmp_path, t5x_files.random_arrays())
  file = tmp_path / "checkpoint"
  name = b"target.encoder.layers_0.mlp.wo.kernel"
  other = b"target.encoder.layers_1.mlp.wo.kernel"
  assert file.read_bytes().count(name) == 1
  file.write_bytes(file.read_bytes().replace(name, other))
  assert opening(tmp_path) == (
      f"{tmp_path}: encoder/layers_0/mlp/wo/kernel: path: found"
      f" '{other.decode()}', expected '{name.decode()}'"
  )


def test_an_array_that_two_parameters_name(tmp_path):
  # 'a/b.c' and 'a/b/c' are the same to T5X.
  array = np.ones((3, 2), np.float32)
  target = {n: t5x_files.spec(n, array) for n in ("a/b.c", "a/b/c")}
  t5x_files.write_msgpack(tmp_path / "checkpoint", target)
  assert opening(tmp_path) == (
      f"{tmp_path}/target.a.b.c: found it for a/b.c and for a/b/c, expected it"
      " for one"
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


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"dtype": ">f4"}, "dtype '>f4' in .zarray, expected '<f4'"),
        ({"order": "F"}, "order 'F' in .zarray, expected 'C'"),
        ({"chunks": [8, 3]}, "chunks [8, 3] in .zarray, expected [3, 8]"),
        (
            {"compressor": {"id": "zlib", "level": 1}},
            "compressor 'zlib' in .zarray, expected 'gzip'",
        ),
        ({"compressor": None}, "compressor None in .zarray, expected 'gzip'"),
        (
            {"dimension_separator": "/"},
            "dimension_separator '/' in .zarray, expected '.'",
        ),
    ],
)
def test_a_zarray_of_other_numbers(tmp_path, fields, problem):
  file = embedding_in_zarr(tmp_path) / ZARR / ".zarray"
  file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))
  assert reading(tmp_path) == (
      f"{tmp_path}/{ZARR}: {EMBEDDING}: found {problem} as in the checkpoint"
  )


def test_every_changed_byte_of_a_zarray(tmp_path):
  """Is refused in one line, or changes no number."""
  file = embedding_in_zarr(tmp_path) / ZARR / ".zarray"
  whole = file.read_bytes()
  leaf = t5x_native.open_checkpoint(str(tmp_path), CONFIG)[EMBEDDING]
  right = leaf.whole()
  refused = 0
  for place in range(len(whole)):
    for byte in {whole[place] ^ 0x01, *b">F"} - {whole[place]}:
      file.write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])
      try:
        np.testing.assert_array_equal(leaf.whole(), right)
      except UserError as error:
        assert "\n" not in str(error)
        refused += 1
  assert refused > 2 * len(whole)


def test_a_damaged_zarray(tmp_path):
  (embedding_in_zarr(tmp_path) / ZARR / ".zarray").write_text("{")
  assert "Invalid JSON" in reading(tmp_path)
