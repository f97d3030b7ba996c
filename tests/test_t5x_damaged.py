"""Specifies what is refused in place of a T5X checkpoint, literally.

`test_t5x_damaged_arrays.py` has the zarr arrays beside the msgpack.
"""

import dataclasses

import msgpack
import numpy as np
import pytest

from tests import t5x_files
from tests.t5x_files import CONFIG, EMBEDDING, opening, packed
from xprompt_jax.types import UserError
from xprompt_jax.weights import loading, t5x_native

# What is not there, or is something else.


def test_nothing_there(tmp_path):
  assert opening(tmp_path / "no") == f"{tmp_path}/no: No such file or directory"


def test_an_empty_folder(tmp_path):
  assert opening(tmp_path) == (
      f"{tmp_path}: found no file 'checkpoint', expected T5X's native format"
  )


def test_several_checkpoints(tmp_path):
  for step in (1000, 200, 30):
    t5x_files.write(tmp_path / f"checkpoint_{step}", {})
  assert opening(tmp_path) == (
      f"{tmp_path}: found checkpoint_30, checkpoint_200, checkpoint_1000,"
      " expected the folder of one checkpoint"
  )


def test_a_tensorflow_checkpoint(tmp_path):
  converts = (
      "found a TensorFlow checkpoint, expected T5X's native format; T5X's"
      " t5x/scripts/convert_tf_checkpoint.py converts it"
  )
  (tmp_path / "model.ckpt-1000.index").touch()
  assert opening(tmp_path) == f"{tmp_path}: {converts}"
  file = tmp_path / "checkpoint"
  file.write_text('model_checkpoint_path: "model.ckpt-1000"\n')
  assert opening(tmp_path) == f"{file}: {converts}"


@pytest.mark.parametrize("name", ["_METADATA", "manifest.ocdbt", "state/x"])
def test_an_orbax_checkpoint(tmp_path, name):
  folder = tmp_path / "run" / "checkpoint_3"
  (folder / name).parent.mkdir(parents=True)
  (folder / name).touch()
  assert opening(tmp_path / "run") == (
      f"{folder}: found a checkpoint written by Orbax, expected T5X's native"
      " format, which T5X's checkpoints.Checkpointer writes"
  )


def test_the_first_format_of_orbax(tmp_path):
  file = tmp_path / "checkpoint"
  t5x_files.write_msgpack(file, {EMBEDDING: "PLACEHOLDER://target.x"})
  assert opening(tmp_path).startswith(f"{file}: found a checkpoint written by")


# The msgpack.


def test_a_truncated_msgpack(tmp_path):
  file = tmp_path / "checkpoint"
  t5x_files.write_msgpack(file, {EMBEDDING: np.ones((2, 3), np.float32)})
  whole = file.read_bytes()
  file.write_bytes(whole[:-4])
  assert opening(tmp_path) == (
      f"{file}: optimizer/target/{EMBEDDING}: found the file's end at byte"
      f" {len(whole) - 4}, expected at least 4 more; the msgpack is truncated"
  )
  for length in range(len(whole)):
    file.write_bytes(whole[:length])
    assert opening(tmp_path).endswith("the msgpack is truncated")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\x93\x01\x02\x03", "found a msgpack list, expected a map"),
        (b"\x81\xa1a\xc1", "a: found byte 0xc1 at 3, expected a msgpack value"),
        (b"\x80rest", "found 4 bytes after the msgpack's end at byte 1"),
        (b"\x81\x01\x01", "found a scalar as a name in a map, expected text"),
        (
            b"\x81\xa1\xff\x01",
            "found the name '\ufffd', expected printable text",
        ),
        (
            b"\x81\xa1\n\x01",
            "found the name '\\n', expected printable text",
        ),
        (
            b"\x82\xa1a\x01\xa1a\x02",
            "found the name 'a' twice in one map",
        ),
        (b"\x80", "found nothing, expected parameters under optimizer/target"),
        (
            b"\x81\xa1a\x01",
            "found a, expected parameters under optimizer/target",
        ),
        (
            b"\x81\xa7version\x04",
            "found version 4, expected one of 2, 3",
        ),
    ],
)
def test_what_is_no_msgpack_of_t5x(tmp_path, data, problem):
  file = tmp_path / "checkpoint"
  file.write_bytes(data)
  assert opening(tmp_path) == f"{file}: {problem}"


@pytest.mark.parametrize("opener", [b"\x91", b"\x81\xa1a"])
def test_values_nested_without_end(tmp_path, opener):
  (tmp_path / "checkpoint").write_bytes(opener * 100_000)
  found = opening(tmp_path)
  assert found.endswith("found a value nested more than 64 deep")


@pytest.mark.parametrize("target", [None, {}, 3, []])
def test_no_parameters(tmp_path, target):
  tree = {"version": 3, "optimizer": {"target": target}}
  file = tmp_path / "checkpoint"
  file.write_bytes(msgpack.packb(tree))
  assert opening(tmp_path) == (
      f"{file}: found optimizer, version, expected parameters under"
      " optimizer/target"
  )


def extension(*parts, kind=1):
  return msgpack.ExtType(kind, msgpack.packb(parts))


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, "found None, expected an array"),
        (7, "found 7, expected an array"),
        ([1.0, 2.0], "found [1.0, 2.0], expected an array"),
        (
            extension((2,), "float32", b"12345678", kind=77),
            "found a msgpack extension of type 77, expected an array",
        ),
        (
            extension((2,), "float32"),
            "found a msgpack extension of type 1, expected an array",
        ),
        (
            extension((2, -1), "float32", b""),
            "found no shape, dtype and bytes, expected an array",
        ),
        (
            extension((2,), "float32", 8),
            "found no shape, dtype and bytes, expected an array",
        ),
        (
            extension((2, 3), "float32", b"1234"),
            "found 4 bytes, expected 24 for (2, 3) float32",
        ),
        (
            np.ones(2, np.int32),
            "found dtype int32, expected one of float32, bfloat16, float16",
        ),
        (
            extension((1,), "object", b"12345678"),
            "found dtype object, expected one of float32, bfloat16, float16",
        ),
        (
            {"__msgpack_chunked_array__": True, "shape": {"0": 2}},
            "found a cut array without its shape and chunks, expected Flax's"
            " form",
        ),
        (
            {
                "__msgpack_chunked_array__": True,
                "shape": {"0": 2, "1": 3},
                "chunks": {"0": packed(np.ones(5, np.float32))},
            },
            "found 5 numbers of float32 in its chunks, expected 6 of one dtype",
        ),
    ],
)
def test_what_is_no_array(tmp_path, value, problem):
  file = tmp_path / "checkpoint"
  t5x_files.write_msgpack(file, {EMBEDDING: value})
  assert opening(tmp_path) == f"{file}: {EMBEDDING}: {problem}"


def test_a_name_that_is_there_twice(tmp_path):
  file = tmp_path / "checkpoint"
  one = packed(np.ones(2, np.float32))
  target = {"a/b": one, "a": {"b": one}}
  tree = {"version": 3, "optimizer": {"target": target}}
  file.write_bytes(msgpack.packb(tree))
  assert opening(tmp_path) == f"{file}: found a/b twice, expected it once"


def test_a_file_that_shrinks_while_it_is_open(tmp_path):
  file = tmp_path / "checkpoint"
  t5x_files.write_msgpack(file, {EMBEDDING: np.ones((2, 3), np.float32)})
  leaf = t5x_native.open_checkpoint(str(file), CONFIG)[EMBEDDING]
  file.write_bytes(b"")
  with pytest.raises(UserError) as error:
    leaf.whole()
  assert str(error.value) == (
      f"{file}: {EMBEDDING}: found a shorter file than it was when it was"
      " opened"
  )


# Trees.


def test_another_number_of_stacked_layers(tmp_path):
  name = "encoder/encoder/mlp/wo/kernel"
  for shape in ((7, 2, 8), (3, 7, 8), (8,)):
    file = tmp_path / "checkpoint"
    t5x_files.write_msgpack(file, {name: np.ones(shape, np.float32)})
    assert opening(tmp_path) == (
        f"{file}: {name}: found shape {shape}, expected 3 layers at axis 1"
    )


def test_layers_stacked_and_not(tmp_path):
  scale = "pre_mlp_layer_norm/scale"
  arrays = {
      f"encoder/encoder/{scale}": np.ones((8, 3), np.float32),
      f"encoder/layers_1/{scale}": np.ones(8, np.float32),
  }
  t5x_files.write_msgpack(tmp_path / "checkpoint", arrays)
  assert opening(tmp_path) == (
      f"{tmp_path}/checkpoint: found encoder/layers_1/{scale} stacked and by"
      " itself, expected one"
  )


def test_sizes_that_cannot_be_told(tmp_path):
  arrays = t5x_files.random_arrays()
  file = tmp_path / "checkpoint"
  del arrays["encoder/relpos_bias/rel_embedding"]
  t5x_files.write_msgpack(file, arrays)
  with pytest.raises(UserError) as error:
    t5x_native.guess_config(str(file))
  assert str(error.value) == (
      f"{file}: found no encoder/(.*/)?relpos_bias/rel_embedding, expected the"
      " names of a T5"
  )
  arrays[EMBEDDING] = arrays[EMBEDDING][0]
  t5x_files.write_msgpack(file, arrays)
  with pytest.raises(UserError) as error:
    t5x_native.guess_config(str(file))
  assert str(error.value) == (
      f"{file}: {EMBEDDING}: found shape (8,), expected a T5's"
  )


def test_a_network_of_other_sizes_lists_names(tmp_path):
  t5x_files.write(tmp_path, t5x_files.random_arrays())
  config = dataclasses.replace(CONFIG, num_decoder_layers=2, vocab_size=13)
  with pytest.raises(UserError) as error:
    loading.load_frozen(str(tmp_path), config)
  assert (
      "missing: decoder/layers_1/encoder_decoder_attention/key/kernel"
      in str(error.value)
  )
