"""Files of torch.save: what is read, and what is found to be wrong."""

import os
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest

from tests import torch_models
from tests.huggingface_folders import refused
from xprompt_jax.weights import torch_file

torch = torch_models.torch
pytestmark = pytest.mark.interop

A = np.arange(12, dtype=np.float32).reshape(3, 4)
B = (np.arange(10, dtype=np.float32) + 100).reshape(5, 2)


def tensors():
  """Two storages; the second of bfloat16."""
  return {"a": torch.tensor(A), "b": torch.tensor(B).to(torch.bfloat16)}


def saved(path, value, *, new=True):
  torch.save(value, path, _use_new_zipfile_serialization=new)
  return path


def opened(path, **kwargs):
  return torch_file.Reader().open_file(path, **kwargs)


@pytest.mark.parametrize("new", [True, False])
def test_tensors(new, tmp_path):
  file = saved(tmp_path / "x.bin", tensors(), new=new)
  found = opened(file)
  assert found.keys() == {"a", "b"}
  assert found["a"].shape == (3, 4)
  assert found["a"].dtype == np.float32
  assert found["a"].file == str(file)
  assert found["b"].dtype == ml_dtypes.bfloat16
  np.testing.assert_array_equal(found["a"].whole(), A)
  np.testing.assert_array_equal(found["b"].whole(), B.astype("bfloat16"))
  np.testing.assert_array_equal(
      found["a"].read((slice(1, 3), slice(2, None))), A[1:3, 2:]
  )


@pytest.mark.parametrize("new", [True, False])
def test_parameters_views_and_shared_storages(new, tmp_path):
  base = torch.arange(20, dtype=torch.float16).reshape(5, 4)
  value = {
      "parameter": torch.nn.Parameter(torch.ones(3)),
      "rows": base[2:],
      "turned": base.t(),
      "same": base,
      "none": torch.zeros(0, 4),
      "one": torch.tensor(7.0),
  }
  found = opened(saved(tmp_path / "x.bin", value, new=new))
  for name, tensor in value.items():
    expected = tensor.detach().numpy()
    np.testing.assert_array_equal(found[name].whole(), expected)
    assert found[name].shape == expected.shape


def test_a_view_with_gaps(tmp_path):
  value = {"a": torch.zeros(5, 4)[:, :2]}
  file = saved(tmp_path / "x.bin", value)
  assert refused(opened, file) == (
      f"{file}: a: found the strides (4, 1) of a view, expected a contiguous"
      " tensor"
  )


@pytest.mark.parametrize(
    ("name", "array"), [("a", A), ("b", B.astype("bfloat16"))]
)
def test_one_flipped_bit_is_found(name, array, tmp_path):
  file = saved(tmp_path / "x.bin", tensors())
  content = bytearray(file.read_bytes())
  content[content.index(array.tobytes()) + 5] ^= 1
  file.write_bytes(content)
  # torch does not find it, in either way of reading.
  for mmap in (True, False):
    torch.load(file, weights_only=True, mmap=mmap)
  assert refused(opened, file) == (
      f"{file}: {name}: found another crc32 than the file states of it,"
      " expected the same: the file is damaged"
  )
  # Unless the contents are known to be right.
  assert opened(file, checked=True).keys() == {"a", "b"}


def test_a_flipped_bit_elsewhere_in_the_archive(tmp_path):
  file = saved(tmp_path / "x.bin", tensors())
  content = bytearray(file.read_bytes())
  with zipfile.ZipFile(file) as archive:
    pickled = archive.read("x/data.pkl")
  content[content.index(pickled) + 20] ^= 1
  file.write_bytes(content)
  assert refused(opened, file) == (
      f"{file}: found another crc32 of x/data.pkl than the file states,"
      " expected the same: the file is damaged"
  )


@pytest.mark.parametrize("new", [True, False])
def test_truncated(new, tmp_path):
  file = saved(tmp_path / "x.bin", tensors(), new=new)
  content = file.read_bytes()
  for length in (0, 3, 10, len(content) // 2, len(content) - 5):
    file.write_bytes(content[:length])
    message = refused(opened, file)
    assert message.startswith(f"{file}: not a whole file of torch.save: ")
    assert len(message) < len(str(file)) + 200


def test_something_else_than_a_file_of_torch(tmp_path):
  file = tmp_path / "x.bin"
  file.write_text("weights")
  assert refused(opened, file) == (
      f"{file}: not a whole file of torch.save: UnpicklingError: its pickle"
      " cannot be read"
  )
  file.unlink()
  assert refused(opened, file) == (
      f"{file}: cannot read: No such file or directory"
  )


def test_an_old_torch_is_refused(tmp_path, monkeypatch):
  file = saved(tmp_path / "x.bin", tensors())
  monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
  assert refused(opened, file) == (
      f"{file}: found torch 2.5.1+cpu, expected 2.6 or newer: a file can make"
      " older ones run code (CVE-2025-32434)"
  )
  monkeypatch.setattr(torch, "__version__", "2.10.0")
  assert opened(file).keys() == {"a", "b"}


class Hostile:
  """Runs a command when it is unpickled."""

  def __init__(self, path):
    self._path = path

  def __reduce__(self):
    return os.system, (f"touch {self._path}",)


@pytest.mark.parametrize("new", [True, False])
def test_nothing_else_is_unpickled(new, tmp_path):
  touched = tmp_path / "touched"
  value = {**tensors(), "c": Hostile(touched)}
  file = saved(tmp_path / "x.bin", value, new=new)
  assert refused(opened, file) == (
      f"{file}: wants to unpickle {os.system.__module__}.system, expected"
      " nothing but tensors"
  )
  assert not touched.exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(2), "found a Tensor, expected a dict of tensors"),
        ([torch.zeros(2)], "found a list, expected a dict of tensors"),
        ({"a": 3}, "a: found a int, expected a dense tensor"),
        (
            {"state_dict": {"a": torch.zeros(2)}},
            "state_dict: found a dict, expected a dense tensor",
        ),
        (
            {"a": torch.zeros(2, dtype=torch.float64)},
            (
                "a: found dtype float64, expected one of float32, bfloat16,"
                " float16"
            ),
        ),
        (
            {"a": torch.zeros(2, dtype=torch.int8)},
            "a: found dtype int8, expected one of float32, bfloat16, float16",
        ),
        (
            {"a": torch._neg_view(torch.ones(2))},
            (
                "a: found a tensor that torch negates or conjugates when it is"
                " used, expected the numbers themselves, as resolve_neg() and"
                " resolve_conj() give them"
            ),
        ),
        (
            {"a": torch.ones(2, dtype=torch.complex64).conj()},
            (
                "a: found a tensor that torch negates or conjugates when it is"
                " used, expected the numbers themselves, as resolve_neg() and"
                " resolve_conj() give them"
            ),
        ),
        (
            {"a": torch.zeros(2, 2).to_sparse()},
            "a: found a sparse_coo tensor on cpu, expected a dense tensor",
        ),
    ],
)
@pytest.mark.parametrize("new", [True, False])
def test_something_else_than_weights(value, message, new, tmp_path):
  file = saved(tmp_path / "x.bin", value, new=new)
  assert refused(opened, file) == f"{file}: {message}"


def rewritten(file, compression=zipfile.ZIP_STORED, **members):
  """Writes an archive anew with some members' contents replaced."""
  with zipfile.ZipFile(file) as archive:
    found = {n: archive.read(n) for n in archive.namelist()}
  with zipfile.ZipFile(file, "w", compression) as archive:
    for name, content in found.items():
      archive.writestr(name, members.get(name.split("/")[1], content))
  return file


def test_archives_that_torch_does_not_write(tmp_path):
  file = saved(tmp_path / "x.bin", tensors())
  assert opened(rewritten(file)).keys() == {"a", "b"}
  rewritten(file, byteorder=b"big")
  assert refused(opened, file) == (
      f"{file}: found the byte order 'big', expected 'little'"
  )
  rewritten(file, zipfile.ZIP_DEFLATED, byteorder=b"little")
  assert refused(opened, file) == (
      f"{file}: found x/data.pkl compressed, expected it stored as torch.save"
      " stores it"
  )


def test_a_directory_of_the_archive_that_lies(tmp_path):
  file = saved(tmp_path / "x.bin", {"a": torch.tensor(A)})
  content = bytearray(file.read_bytes())
  # The sizes in the central directory's entry of x/data/0.
  entry = content.rindex(b"x/data/0") - 46
  assert struct.unpack_from("<II", content, entry + 20) == (48, 48)
  struct.pack_into("<II", content, entry + 20, 40, 40)
  file.write_bytes(content)
  assert refused(opened, file).startswith(f"{file}: ")


def test_one_legacy_file_at_a_time(tmp_path, monkeypatch):
  reader = torch_file.Reader()
  loaded = []
  load = torch.load
  monkeypatch.setattr(
      torch, "load", lambda f, **kw: (loaded.append(f[-5]), load(f, **kw))[1]
  )
  files = [tmp_path / "1.bin", tmp_path / "2.bin"]
  found = []
  for file in files:
    saved(file, tensors(), new=False)
    found.append(reader.open_file(file))
  assert loaded == ["1", "2"]
  for leaves in found:
    for leaf in leaves.values():
      leaf.whole()
  assert loaded == ["1", "2", "1", "2"]
  # What was read does not keep its file in memory.
  assert found[0]["a"].read((slice(0, 1), slice(0, 1))).base is None
