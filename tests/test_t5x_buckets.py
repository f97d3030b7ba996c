"""Specifies how T5X's checkpoints are read from a Google bucket."""

import json
import os
import subprocess
import sys

import pytest

from tests import fake_gcs, t5x_files
from tests.t5x_files import CONFIG, opening
from xprompt_jax.weights import loading, t5x_storage

# Prints the fingerprint of each checkpoint, or why it cannot be read.
READ = """
import json
import sys
from tests.t5x_files import CONFIG
from xprompt_jax.types import UserError
from xprompt_jax.weights import loading

def read(path):
  try:
    return loading.load_frozen(path, CONFIG).fingerprint
  except UserError as error:
    return str(error)

print(json.dumps([read(path) for path in sys.argv[1:]]))
"""


def read(environment, *paths):
  """What is found for each path in the fake bucket."""
  done = subprocess.run(
      [sys.executable, "-c", READ, *paths],
      env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
      capture_output=True,
      text=True,
      check=True,
      timeout=300,
  )
  return json.loads(done.stdout)


def test_a_checkpoint_in_a_bucket(tmp_path):
  arrays = t5x_files.random_arrays()
  t5x_files.write(tmp_path / "t5/run/checkpoint_3", arrays, driver="gfile")
  t5x_files.write_msgpack(tmp_path / "t5/old", arrays)
  local = str(tmp_path / "t5/run")
  expected = loading.load_frozen(local, CONFIG).fingerprint
  with fake_gcs.serving(tmp_path, "models") as (environment, requests):
    # The folder, its only file in sight, the one that holds it, the older form.
    found = read(
        environment,
        "gs://models/t5/run/checkpoint_3",
        "gs://models/t5/run/checkpoint_3/checkpoint",
        "gs://models/t5/run/",
        "gs://models/t5/old",
    )
  assert found == [expected] * 4
  asked = {path.removeprefix("/storage/v1/b/models/o/") for path in requests}
  folder = "t5/run/checkpoint_3/target.decoder.layers_0.mlp.wo.kernel"
  assert {f"{folder}/.zarray", f"{folder}/0.0", f"{folder}/2.0"} <= asked


def test_what_a_bucket_does_not_have(tmp_path):
  arrays = t5x_files.random_arrays()
  folder = t5x_files.write(tmp_path / "t5/checkpoint_3", arrays)
  t5x_files.write(tmp_path / "t5/checkpoint_20", {})
  (tmp_path / "tf").mkdir()
  (tmp_path / "tf/model.ckpt-5.index").touch()
  (folder / "target.encoder.layers_0.mlp.wo.kernel" / "0.0").unlink()
  with fake_gcs.serving(tmp_path, "models") as (environment, _):
    several, none, tensorflow, damaged = read(
        environment,
        "gs://models/t5",
        "gs://models/none",
        "gs://models/tf",
        "gs://models/t5/checkpoint_3",
    )
  assert several == (
      "gs://models/t5: found checkpoint_3, checkpoint_20, expected the folder"
      " of one checkpoint"
  )
  assert none == (
      "gs://models/none: found no file 'checkpoint', expected T5X's native"
      " format"
  )
  assert tensorflow.startswith(
      "gs://models/tf: found a TensorFlow checkpoint, expected"
  )
  name = "target.encoder.layers_0.mlp.wo.kernel"
  assert damaged.startswith(
      f"gs://models/t5/checkpoint_3/{name}:"
      " encoder/layers_0/mlp/wo/kernel: found a damaged chunk: chunk {0, 0}"
  )


def test_a_bucket_that_may_not_be_read(tmp_path):
  t5x_files.write(tmp_path / "t5", t5x_files.random_arrays())
  with fake_gcs.serving(tmp_path, "models", status=403) as (environment, _):
    (found,) = read(environment, "gs://models/t5")
  assert found == (
      "gs://models/t5/checkpoint: cannot be read: Forbidden; expected a bucket"
      " that all may read, or the credentials of 'gcloud auth"
      " application-default login'"
  )


@pytest.mark.parametrize("path", ["gs://", "gs:///x", "gs://b/../x"])
def test_no_buckets_path(path):
  assert opening(path) == (
      f"{path}: found no bucket's path, expected gs://BUCKET/PATH"
  )


def test_places():
  found = t5x_storage.place("gs://bucket/a/b/")
  assert (found.bucket, found.path, found.name) == (
      "bucket",
      "a/b",
      "gs://bucket/a/b",
  )
  assert found.kvstore("x") == {
      "driver": "gcs",
      "bucket": "bucket",
      "path": "a/b/x/",
  }
  root = t5x_storage.place("gs://bucket")
  assert root.kvstore("")["path"] == ""
  assert root.child("a").name == "gs://bucket/a"
