"""Files are whole or not there, and damage is told from contents."""

import json
import math

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from xprompt_jax import artifacts
from xprompt_jax.types import UserError


def test_replacing_puts_the_whole_file_in_place(tmp_path):
  path = tmp_path / "new" / "folder" / "a.txt"
  with artifacts.replacing(path) as temporary:
    assert temporary.parent == path.parent
    temporary.write_text("one")
    assert not path.exists()
  assert path.read_text() == "one"
  artifacts.write_text(path, "two")
  assert path.read_text() == "two"
  assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_half_written_stays_when_the_block_raises(tmp_path, error):
  path = tmp_path / "a.txt"
  for old in (None, "old"):
    if old is not None:
      path.write_text(old)
    with pytest.raises(error), artifacts.replacing(path) as temporary:
      temporary.write_text("ne")
      raise error
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"] * (old is not None)
  assert path.read_text() == "old"


def test_a_full_disk_names_the_file(tmp_path):
  path = tmp_path / "a.txt"
  with (
      pytest.raises(UserError) as refusal,
      artifacts.replacing(path) as temporary,
  ):
    temporary.write_text("ne")
    raise OSError(28, "No space left on device")
  assert str(refusal.value) == f"{path}: cannot write: No space left on device"
  assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file_is_named(tmp_path):
  (tmp_path / "file").touch()
  path = tmp_path / "file" / "a.txt"
  with pytest.raises(UserError) as refusal:
    artifacts.write_text(path, "one")
  assert str(refusal.value) == f"{path}: cannot write: File exists"


ARRAYS = {
    "layer/kernel": np.array([[1.5, -2.0, 0.0]], np.float32),
    "number": np.array(2.5, np.float32),
    "step": np.array(7, np.int64),
    "large": np.array([2**62, -1], np.int64),
    "seed": np.array([2**32 - 1], np.uint32),
    "exact": np.array([1e-300, np.nan, np.inf], np.float64),
    "flags": np.array([[True], [False]]),
    "half": np.array([0.5, 3.0], ml_dtypes.bfloat16),
    "nothing": np.zeros((0, 3), np.float32),
    "turned": np.arange(6).reshape(2, 3).T,
}


def assert_same(found, expected):
  assert found.keys() == expected.keys()
  for name, array in expected.items():
    assert found[name].dtype == array.dtype, name
    assert found[name].shape == array.shape, name
    np.testing.assert_array_equal(found[name], array)


def test_arrays_come_back_as_they_were(tmp_path):
  path = tmp_path / "a.safetensors"
  artifacts.save_arrays(path, ARRAYS)
  assert_same(artifacts.load_arrays(path), ARRAYS)


def test_jax_arrays_and_numbers_come_back_as_numpy(tmp_path):
  path = tmp_path / "a.safetensors"
  artifacts.save_arrays(path, {"a": jnp.arange(3.0), "b": True})
  expected = {"a": np.array([0, 1, 2], np.float32), "b": np.array(True)}
  assert_same(artifacts.load_arrays(path), expected)


def test_equal_arrays_make_equal_files(tmp_path):
  one, two = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
  artifacts.save_arrays(one, ARRAYS)
  artifacts.save_arrays(two, dict(reversed(ARRAYS.items())))
  assert one.read_bytes() == two.read_bytes()


def test_a_flipped_byte_is_never_read_as_other_arrays(tmp_path):
  arrays = {"a": np.array([1.0, 2.0], np.float32), "b": np.array([3], np.int32)}
  path = tmp_path / "a.safetensors"
  artifacts.save_arrays(path, arrays)
  whole = path.read_bytes()
  refused = []
  for place in range(len(whole)):
    damaged = bytearray(whole)
    damaged[place] ^= 1
    path.write_bytes(damaged)
    try:
      # A key of the metadata may change; no number, name, shape or dtype.
      assert_same(artifacts.load_arrays(path), arrays)
    except UserError as e:
      assert str(e).startswith(f"{path}: ")
      refused.append(place)
  assert refused[-12:] == list(range(len(whole) - 12, len(whole)))


@pytest.mark.parametrize("older", [False, True])
def test_damage_is_told_in_one_line(tmp_path, older):
  arrays = {"a": np.array([2.0], np.float32), "b": np.array([1.0], np.float32)}
  changed = {"a": arrays["a"], "b": np.array([-1.0], np.float32)}
  path = tmp_path / "a.safetensors"
  artifacts.save_arrays(path, arrays)
  where = f"{path}: b"
  if older:
    # Once there was one sum for all tensors of a file.
    stated = {"sha256": artifacts.digest_arrays(arrays)}
    safetensors_numpy.save_file(arrays, path, stated)
    where = f"{path}"
  else:
    arrays.pop("a"), changed.pop("a")
  assert artifacts.load_arrays(path)["b"] == 1
  damaged = bytearray(path.read_bytes())
  damaged[-1] ^= 128
  path.write_bytes(damaged)
  with pytest.raises(UserError) as refusal:
    artifacts.load_arrays(path)
  stated, found = map(artifacts.digest_arrays, (arrays, changed))
  assert str(refusal.value) == (
      f"{where}: contents have sha256 {found[:12]}, expected {stated[:12]}: the"
      " file is damaged"
  )


@pytest.mark.parametrize(
    ("stated", "line"),
    [
        ({"a": "A"}, "b: contents have sha256 B, expected none"),
        ({"a": "A", "b": "B", "c": "C"}, "c: contents have sha256 none,"),
        ("{", "sha256 of its tensors: not JSON"),
    ],
)
def test_a_tensor_more_or_less(tmp_path, stated, line):
  arrays = {"a": np.zeros(1), "b": np.ones(1)}
  sums = {k: artifacts.digest_arrays({k: v}) for k, v in arrays.items()}
  if stated != "{":
    stated = json.dumps({k: sums.get(k, "C") for k in stated})
  path = tmp_path / "a.safetensors"
  safetensors_numpy.save_file(arrays, path, {"sha256": stated})
  line = line.replace(" B,", f" {sums['b'][:12]},")
  with pytest.raises(UserError) as refusal:
    artifacts.load_arrays(path)
  assert str(refusal.value).startswith(f"{path}: {line}")
  assert str(refusal.value).endswith(": the file is damaged")


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path):
  path = tmp_path / "a.safetensors"
  artifacts.save_arrays(path, {"a": np.array([1.0, 2.0], np.float32)})
  whole = path.read_bytes()
  for length in range(len(whole)):
    path.write_bytes(whole[:length])
    with pytest.raises(UserError) as refusal:
      artifacts.load_arrays(path)
    assert str(refusal.value).startswith(f"{path}: not a whole safetensors")


def test_a_missing_file_is_named(tmp_path):
  path = tmp_path / "a.safetensors"
  with pytest.raises(UserError, match=f"{path}: cannot read: No such file"):
    artifacts.load_arrays(path)


@pytest.mark.parametrize(
    ("arrays", "same"),
    [
        ({"b": [3.0], "a": [1.0, 2.0]}, True),
        ({"a": [1.0, 2.0], "b": [4.0]}, False),
        ({"a": [1.0, 2.0], "c": [3.0]}, False),
        ({"a": [[1.0, 2.0]], "b": [3.0]}, False),
        ({"a": [1.0], "b": [2.0, 3.0]}, False),
        ({"a": [1.0, 2.0]}, False),
    ],
)
def test_digest_covers_names_shapes_and_contents(arrays, same):
  first = {"a": np.array([1.0, 2.0]), "b": np.array([3.0])}
  arrays = {name: np.array(values) for name, values in arrays.items()}
  found = artifacts.digest_arrays(arrays)
  assert (found == artifacts.digest_arrays(first)) == same


def test_digest_covers_dtypes():
  zeros = [np.zeros(2, dtype) for dtype in (np.int32, np.uint32, np.float32)]
  assert len({artifacts.digest_arrays({"a": zero}) for zero in zeros}) == 3


def test_json_keeps_the_order_of_keys_and_refuses_nan(tmp_path):
  path = tmp_path / "a.json"
  artifacts.write_json(path, {"b": 1, "a": [True, None]})
  assert list(artifacts.read_json(path).items()) == [
      ("b", 1),
      ("a", [True, None]),
  ]
  with pytest.raises(ValueError):
    artifacts.write_json(path, {"b": math.nan})
  assert artifacts.read_json(path)["b"] == 1


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b'{"a": ', "not JSON: Expecting value: line 1 column 7 (char 6)"),
        (b"[1]", "found a list, expected an object"),
        (
            b"\xff",
            "not JSON: 'utf-8' codec can't decode byte 0xff in position 0:"
            " invalid start byte",
        ),
    ],
)
def test_json_that_is_none_is_refused_in_one_line(tmp_path, content, line):
  path = tmp_path / "a.json"
  path.write_bytes(content)
  with pytest.raises(UserError) as refusal:
    artifacts.read_json(path)
  assert str(refusal.value) == f"{path}: {line}"


def test_json_lines(tmp_path):
  path = tmp_path / "a.jsonl"
  assert artifacts.read_json_lines(path) == []
  rows: list[dict] = [{"a": 1}, {"a": "two\n"}]
  artifacts.write_json_lines(path, rows)
  assert path.read_bytes().count(b"\n") == 2
  assert artifacts.read_json_lines(path) == rows
  with path.open("a") as f:
    f.write('{"a": ')
  with pytest.raises(UserError, match=f"{path}, line 3: not JSON: "):
    artifacts.read_json_lines(path)


CONFIG = {"model": {"emb_dim": 8, "dtype": "float32"}, "ratios": (0.1, 0.2)}


def test_a_stage_without_a_result_has_to_run(tmp_path):
  assert artifacts.finished_result(tmp_path / "tune", CONFIG) is None


def test_a_finished_stage_gives_its_result(tmp_path):
  result = {"config": CONFIG, "accuracy": [90.5]}
  artifacts.write_json(tmp_path / artifacts.RESULT, result)
  same = {"ratios": [0.1, 0.2], "model": {"dtype": "float32", "emb_dim": 8}}
  found = artifacts.finished_result(tmp_path, same)
  assert found is not None
  assert found["accuracy"] == [90.5]


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (
            {"model": {"emb_dim": 9, "dtype": "bfloat16"}},
            "model.dtype is 'float32' there and 'bfloat16' now",
        ),
        (
            {"model": {"emb_dim": 9, "dtype": "float32"}},
            "model.emb_dim is 8 there and 9 now",
        ),
        ({"ratios": (0.1,)}, "ratios is [0.1, 0.2] there and [0.1] now"),
        ({"seeds": (0,)}, "seeds is None there and [0] now"),
        (
            {"model": None, "ratios": ()},
            "model is {'emb_dim': 8, 'dtype': 'float32'} there and None now",
        ),
    ],
)
def test_another_config_is_refused_by_its_first_difference(
    tmp_path, change, difference
):
  path = tmp_path / artifacts.RESULT
  artifacts.write_json(path, {"config": CONFIG})
  with pytest.raises(UserError) as refusal:
    artifacts.finished_result(tmp_path, CONFIG | change)
  assert str(refusal.value) == (
      f"{path}: belongs to another config: {difference}; expected the same"
      " config, or another --workdir"
  )


def test_a_file_that_recorded_no_config_differs_from_any(tmp_path):
  path = tmp_path / artifacts.STARTED
  with pytest.raises(UserError) as refusal:
    artifacts.check_config(path, None, {"ratios": (0.1,)})
  assert "config: ratios is None there and [0.1] now;" in str(refusal.value)
