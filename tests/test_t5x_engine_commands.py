"""Whole runs of `t5x train --engine=t5x`, on one device and on four.

Every run is a process of its own, as a user starts it: the bundled model, and a
small random one on real WSC rows where they are at hand.
"""

import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from tests import command_line, shared_data, t5x_required
from tests.t5x_examples import shape_of
from tests.test_whole_run import WSC
from xprompt_jax import artifacts

t5x_required.t5x_module("xprompt_jax.t5x_engine.table_trainer")

pytestmark = [pytest.mark.t5x, pytest.mark.slow]

# One seed, a ticket of each granularity, 12 examples a split, two steps.
BUNDLED = (
    "--gin_file=xprompt_demo.gin",
    "--gin.TaskConfig.max_examples=12",
    "--gin.SEEDS=(0,)",
    "--gin.BATCH_SIZE=4",
    "--gin.NUM_STEPS=2",
    "--gin.EVAL_EVERY_STEPS=2",
    "--gin.BUCKETS=(32,)",
    "--gin.TOKEN_RATIOS=(0.5,)",
    "--gin.PIECE_RATIOS=(0.25,)",
)
STAGES = ("tune", "search_token", "search_piece", "rewind")


# What a command shows: a line for each stage or row, as `progress` prints it.
OWN_LINE = re.compile(
    r"(tune|search_token|search_piece|rewind)(/row_\d+)?: \d+/\d+ .*"
)


def command(name, workdir, *flags, devices=1, **environment):
  """Runs a command to its end, in a process with so many devices.

  Nothing but the program's own lines is on standard error.
  """
  count = f"--xla_force_host_platform_device_count={devices}"
  done = subprocess.run(
      [
          sys.executable,
          "-m",
          "xprompt_jax.main",
          name,
          *flags,
          f"--workdir={workdir}",
      ],
      env={
          **os.environ,
          "XLA_FLAGS": count,
          "JAX_PLATFORMS": "cpu",
          **environment,
      },
      capture_output=True,
      text=True,
      check=False,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  others = [
      line for line in done.stderr.splitlines() if not OWN_LINE.fullmatch(line)
  ]
  assert others == []
  return done.stdout


def train(workdir, *flags, devices=1):
  """Runs `t5x train` to its end."""
  command("train", workdir, *flags, devices=devices)
  return workdir


def one_and_four(folder, *flags):
  """The same run on one device and on four."""
  inside = (*flags, "--engine=t5x")
  four = (*inside, "--gin.NUM_MODEL_PARTITIONS=2")
  return {
      "flags": flags,
      1: train(folder / "one", *inside),
      4: train(folder / "four", *four, devices=4),
  }


@pytest.fixture(scope="module")
def bundled(tmp_path_factory):
  return one_and_four(tmp_path_factory.mktemp("bundled"), *BUNDLED)


@pytest.fixture(scope="module")
def wsc(tmp_path_factory):
  vocabulary = f"--gin.VOCABULARY={shared_data.t5_vocabulary()!r}"
  with pytest.MonkeyPatch.context() as patch:
    data = shared_data.path("super_glue")
    patch.setenv("SUPER_GLUE_DIR", str(data))
    folder = tmp_path_factory.mktemp("wsc")
    return one_and_four(folder, *WSC, vocabulary)


@pytest.fixture(params=["bundled", "wsc"])
def runs(request):
  return request.getfixturevalue(request.param)


def summary_of(workdir):
  return artifacts.read_json(workdir / artifacts.RESULT)


def check_same(found, expected, stage):
  """Equal masks, and prompts that differ by rounding."""
  expected, found = (
      artifacts.load_arrays(workdir / stage / artifacts.PROMPT)
      for workdir in (expected, found)
  )
  for mask in ("token_mask", "piece_mask"):
    np.testing.assert_array_equal(found[mask], expected[mask])
  np.testing.assert_allclose(
      found["prompt"], expected["prompt"], rtol=1e-3, atol=1e-3
  )
  assert np.abs(found["prompt"] - found["start"]).max() > 0.3


@pytest.mark.parametrize("devices", [1, 4])
def test_a_run_goes_to_its_end(runs, devices):
  workdir = runs[devices]
  found = summary_of(workdir)
  assert found["config"]["engine"] == "t5x"
  assert found["tickets_tried"] == 2
  facts = artifacts.read_json(workdir / artifacts.RUN)
  assert facts["engine"] == "t5x"
  assert len(facts["devices"]) == devices


@pytest.mark.parametrize("stage", STAGES)
def test_four_devices_train_what_one_does(runs, stage):
  check_same(runs[4], runs[1], stage)


def test_a_run_leaves_what_a_native_one_leaves(bundled, tmp_path):
  native = train(tmp_path / "native", *bundled["flags"])
  expected, found = summary_of(native), summary_of(bundled[1])
  del found["config"]["engine"]
  assert found["config"] == expected["config"]
  assert shape_of(found) == shape_of(expected)
  for stage in STAGES:
    check_same(bundled[1], native, stage)


def test_other_commands_read_the_run(bundled, tmp_path, capsys):
  """`report` and `export` do not know which engine ran."""
  workdir = bundled[1]
  report = tmp_path / "report"
  assert command_line.run("report", workdir, f"--output={report}") == 0
  assert (report / "report.html").exists()
  exported = tmp_path / "exported"
  flags = (*bundled["flags"], f"--workdir={workdir}")
  status = command_line.run(
      "export", *flags, "--format=npy", f"--output={exported}"
  )
  assert status == 0, capsys.readouterr().err
  rewound = artifacts.load_arrays(workdir / "rewind" / artifacts.PROMPT)
  (file,) = exported.glob("*.npy")
  found = np.load(file)
  assert found.shape == rewound["prompt"].shape[1:]
  np.testing.assert_array_equal(found, rewound["prompt"][0])


@pytest.mark.parametrize(
    ("name", "file"), [("eval", None), ("score", "score/scores.safetensors")]
)
def test_other_processes_need_no_t5x(bundled, name, file):
  """They read the folder where T5X cannot be imported."""
  alone = {"PYTHONPATH": str(pathlib.Path(__file__).parent.parent)}
  without = subprocess.run(
      [sys.executable, "-c", "import t5x"],
      env={**os.environ, **alone},
      capture_output=True,
      check=False,
  )
  assert without.returncode == 1
  workdir = bundled[1]
  printed = command(name, workdir, *bundled["flags"], **alone)
  assert printed
  if file is not None:
    assert (workdir / file).exists()
