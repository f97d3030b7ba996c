"""docs/files.md against what one tiny run leaves."""

import json
import pathlib
import re

from safetensors import numpy as safetensors_numpy

DOCS = pathlib.Path(__file__).parent.parent / "docs" / "files.md"
# Of the run: R = seeds, P, K, H, N examples a split.
SIZES = {"R": 2, "P": 4, "K": 8, "H": 32, "N": 12}


def _documented():
  """Names in the tables of docs/files.md, with what stands beside them."""
  tables = {}
  for section in DOCS.read_text().split("\n## ")[1:]:
    title = section.partition("\n")[0]
    rows = re.findall(r"^\| `(.+?)` \| (.+) \|$", section, re.MULTILINE)
    tables[title] = dict(rows)
  return tables


def _file(workdir, title):
  title = title.replace("TASK", "mini_boolq").replace("SPLIT", "train")
  return workdir / title


def _shape(text):
  """`[R, N + 1]` as numbers; letters that differ from run to run as None."""
  shape = []
  for axis in filter(None, text.strip("[]").split(", ")):
    terms = [
        SIZES.get(t, int(t) if t.isdigit() else None) for t in axis.split(" + ")
    ]
    shape.append(None if None in terms else sum(terms))
  return shape


def test_every_file_is_as_documented(tiny_run):
  documented = _documented()
  assert len(documented) == 14
  for title, table in documented.items():
    file = _file(tiny_run, title)
    if file.suffix == ".safetensors":
      arrays = safetensors_numpy.load_file(file)
      assert set(arrays) == set(table), title
      for name, array in arrays.items():
        shape, dtype = table[name].split(" | ")
        assert str(array.dtype) == dtype, (title, name)
        wanted = _shape(shape)
        assert len(wanted) == array.ndim, (title, name)
        for axis, size in zip(wanted, array.shape, strict=True):
          assert axis in (None, size), (title, name)
    else:
      text = file.read_text()
      parts = text.splitlines() if file.suffix == ".jsonl" else [text]
      lines = [json.loads(part) for part in parts]
      for line in lines:
        assert list(line) == list(table), title
