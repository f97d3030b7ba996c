"""Specifies how T5X's native format is written.

That T5X itself restores it is shown in `test_t5x_network.py`.
"""

import dataclasses
import errno
import json
import os
import pathlib

import jax.numpy as jnp
import msgpack
import numpy as np
import pytest

from tests import examples, t5x_files
from tests.huggingface_folders import refused
from tests.t5x_files import CONFIG, EMBEDDING
from xprompt_jax.types import UserError
from xprompt_jax.weights import t5x_native, t5x_writer

ZARR = "target.token_embedder.embedding"


@pytest.fixture
def small_limits(monkeypatch):
  """Only layer norms and biases inline; chunks of a quarter of the embedding."""
  monkeypatch.setattr(t5x_writer, "_INLINE_BYTES", 4 * 8 + 1)
  monkeypatch.setattr(t5x_writer, "_CHUNK_BYTES", 4 * 12 * 8 // 4)


def checkpoint_of(arrays):
  return {
      name: examples.leaf_of(array, tensor=name)
      for name, array in arrays.items()
  }


def unpacked(file):
  """The msgpack with (shape, dtype) in place of its arrays."""

  def array(kind, data):
    assert kind == 1
    shape, dtype, numbers = msgpack.unpackb(data)
    return tuple(shape), dtype, len(numbers)

  return msgpack.unpackb(file.read_bytes(), ext_hook=array)


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16, np.float16])
@pytest.mark.parametrize("limits", ["as they are", "small"])
def test_what_is_written_is_read_bit_for_bit(tmp_path, dtype, limits, request):
  if limits == "small":
    request.getfixturevalue("small_limits")
  arrays = t5x_files.random_arrays(dtype=dtype)
  folder = t5x_writer.write_checkpoint(
      tmp_path / "new", CONFIG, checkpoint_of(arrays), step=7
  )
  assert folder == tmp_path / "new" / "checkpoint_7"
  assert [p.name for p in (tmp_path / "new").iterdir()] == ["checkpoint_7"]
  # All is inline, or the 7 kernels of 3 encoder layers, the 11 of the decoder
  # layer, embedding and output layer lie beside it.
  beside = 7 * 3 + 11 + 2 if limits == "small" else 0
  assert len(list(folder.iterdir())) == 1 + beside
  found = t5x_native.open_checkpoint(str(folder), CONFIG)
  assert found.keys() == arrays.keys()
  for name, leaf in found.items():
    assert leaf.dtype == arrays[name].dtype
    assert leaf.whole().tobytes() == arrays[name].tobytes(), name


@pytest.mark.usefixtures("small_limits")
def test_the_files_are_t5xs(tmp_path):
  arrays = t5x_files.random_arrays(dtype=jnp.bfloat16)
  arrays[EMBEDDING] = arrays[EMBEDDING].astype(np.float32)
  folder = t5x_writer.write_checkpoint(
      tmp_path, CONFIG, checkpoint_of(arrays), step=7
  )
  tree = unpacked(folder / "checkpoint")
  assert tree["version"] == 3
  assert tree["optimizer"]["state"] == {"step": ((), "int32", 4)}
  target = tree["optimizer"]["target"]
  norm = target["encoder"]["encoder_norm"]["scale"]
  assert norm == ((8,), "bfloat16", 16)
  assert target["token_embedder"]["embedding"] == {
      "driver": "zarr",
      "dtype": "float32",
      "kvstore": {"driver": "file", "path": ZARR},
      "metadata": {
          "chunks": [6, 4],
          "compressor": {"id": "gzip", "level": 1},
          "dtype": "<f4",
          "shape": [12, 8],
      },
  }
  kernel = target["decoder"]["logits_dense"]["kernel"]
  assert kernel["metadata"]["dtype"] == "bfloat16"
  assert sorted(p.name for p in (folder / ZARR).iterdir()) == [
      ".zarray",
      "0.0",
      "0.1",
      "1.0",
      "1.1",
  ]
  zarray = json.loads((folder / ZARR / ".zarray").read_text())
  assert zarray["chunks"] == [6, 4]
  assert zarray["fill_value"] is None


@pytest.mark.parametrize(
    ("shape", "chunks"),
    [
        ((4096, 10240), [4096, 2560]),  # 160 MiB of float32
        ((32128, 4096), [4016, 4096]),  # 502 MiB
        ((768, 2048), [768, 2048]),
        ((3, 2**25), [3, 2**22]),
        ((5,), [5]),
    ],
)
def test_chunks_are_of_64_mib_at_most(shape, chunks):
  assert t5x_writer._chunks(shape, 4) == chunks
  assert np.prod(chunks) * 4 <= 2**26


def test_a_position_bias_in_every_layer(tmp_path):
  config = dataclasses.replace(CONFIG, relpos_per_layer=True)
  arrays = t5x_files.random_arrays(config)
  t5x_writer.write_checkpoint(tmp_path, config, checkpoint_of(arrays), step=0)
  assert t5x_native.guess_config(str(tmp_path)) == config


def writing(folder, checkpoint, config=CONFIG, step=7):
  with pytest.raises(UserError) as error:
    t5x_writer.write_checkpoint(folder, config, checkpoint, step=step)
  assert "\n" not in str(error.value)
  return str(error.value)


def test_an_existing_checkpoint_is_left_alone(tmp_path):
  checkpoint = checkpoint_of(t5x_files.random_arrays())
  (tmp_path / "checkpoint_7").mkdir()
  assert writing(tmp_path, checkpoint) == (
      f"{tmp_path}/checkpoint_7: is there already, expected a new folder"
  )
  assert list((tmp_path / "checkpoint_7").iterdir()) == []


def test_beside_another_checkpoint(tmp_path):
  checkpoint = checkpoint_of(t5x_files.random_arrays())
  for step in (7, 70):
    folder = t5x_writer.write_checkpoint(
        tmp_path, CONFIG, checkpoint, step=step
    )
    assert folder == tmp_path / f"checkpoint_{step}"
    found = t5x_native.open_checkpoint(str(folder), CONFIG)
    assert found.keys() == checkpoint.keys()
  names = sorted(p.name for p in tmp_path.iterdir())
  assert names == ["checkpoint_7", "checkpoint_70"]


def test_a_file_in_the_folders_place(tmp_path):
  checkpoint = checkpoint_of(t5x_files.random_arrays())
  (tmp_path / "file").touch()
  assert writing(tmp_path / "file", checkpoint) == (
      f"{tmp_path}/file/checkpoint_7: cannot write: Not a directory"
  )


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("file", "Not a directory"),
        ("file/a/b", "Not a directory"),
        ("a/" + "b" * 256, "File name too long"),
    ],
)
def test_a_place_where_no_folder_can_be(tmp_path, output, reason):
  (tmp_path / "file").touch()
  assert refused(t5x_writer.new_checkpoint, tmp_path / output, 7) == (
      f"{tmp_path}/{output}/checkpoint_7: cannot write: {reason}"
  )
  assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_source_that_cannot_be_read_leaves_nothing(tmp_path):
  checkpoint = checkpoint_of(t5x_files.random_arrays())

  def read(index):
    raise UserError("source: damaged")

  checkpoint[EMBEDDING] = dataclasses.replace(checkpoint[EMBEDDING], read=read)
  assert writing(tmp_path, checkpoint) == "source: damaged"
  assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("small_limits")
def test_an_array_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
  checkpoint = checkpoint_of(t5x_files.random_arrays())

  def full(*args, **kwargs):
    raise ValueError("RESOURCE_EXHAUSTED: No space left on device [a='b']")

  monkeypatch.setattr(t5x_writer.ts, "open", full)
  # The folder is the user's, not the one that is renamed to it; those above
  # that were made for it go as well.
  found = writing(tmp_path / "a" / "b", checkpoint)
  assert found.startswith(f"{tmp_path}/a/b/checkpoint_7/target.")
  assert found.endswith(": cannot be written: No space left on device")
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [".", "link"])
def test_the_folder_the_program_works_in_or_a_link_to_it(
    tmp_path, monkeypatch, name
):
  checkpoint = checkpoint_of(t5x_files.random_arrays())
  (tmp_path / "here").mkdir()
  (tmp_path / "here" / "notes").write_text("mine")
  (tmp_path / "link").symlink_to("here")
  monkeypatch.chdir(tmp_path / "here" if name == "." else tmp_path)
  folder = pathlib.Path(name)
  found = t5x_writer.write_checkpoint(folder, CONFIG, checkpoint, step=7)
  assert len(t5x_native.open_checkpoint(str(found), CONFIG)) == len(checkpoint)
  assert sorted(p.name for p in (tmp_path / "here").iterdir()) == [
      "checkpoint_7",
      "notes",
  ]


def test_a_link_in_the_checkpoints_place_is_left_alone(tmp_path):
  checkpoint = checkpoint_of(t5x_files.random_arrays())
  (tmp_path / "checkpoint_7").symlink_to("nowhere")
  assert writing(tmp_path, checkpoint) == (
      f"{tmp_path}/checkpoint_7: is there already, expected a new folder"
  )
  assert [p.name for p in tmp_path.iterdir()] == ["checkpoint_7"]


def test_a_last_step_that_fails_leaves_nothing(tmp_path, monkeypatch):
  checkpoint = checkpoint_of(t5x_files.random_arrays())
  (tmp_path / "notes").write_text("mine")

  def fail(old, new):
    raise OSError(errno.EIO, "Input/output error")

  monkeypatch.setattr(os, "replace", fail)
  assert writing(tmp_path, checkpoint) == (
      f"{tmp_path}/checkpoint_7: cannot write: Input/output error"
  )
  assert [p.name for p in tmp_path.iterdir()] == ["notes"]


def test_what_does_not_fit_the_network(tmp_path):
  checkpoint = checkpoint_of(t5x_files.random_arrays())
  del checkpoint[EMBEDDING]
  assert writing(tmp_path, checkpoint) == (
      f"{tmp_path}/checkpoint_7: does not fit T5Config: missing: {EMBEDDING};"
      " expected its 47 parameters"
  )
  assert writing(tmp_path, {}, step=-1) == (
      "step: found -1, expected an integer >= 0"
  )
