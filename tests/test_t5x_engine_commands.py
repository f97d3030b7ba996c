"""Whole runs of `t5x train --engine=t5x`, on one device and on four.

Every run is a process of its own, as a user starts it: the bundled model, and a
small random one on real WSC rows where they are at hand.
"""

import os
import re
import signal
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
    "--gin.EVAL_EVERY_STEPS=1",
    "--gin.BUCKETS=(32,)",
    "--gin.TOKEN_RATIOS=(0.5,)",
    "--gin.PIECE_RATIOS=(0.25,)",
)
STAGES = ("tune", "search_token", "search_piece", "rewind")


# What a command shows: a line for each stage or row, as `progress` prints it.
OWN_LINE = re.compile(
    r"(tune|search_token|search_piece|rewind)(/row_\d+)?: \d+/\d+ .*"
)


def process(*arguments, devices=1, **environment):
  """Runs Python to its end, in a process with so many devices."""
  count = f"--xla_force_host_platform_device_count={devices}"
  return subprocess.run(
      [sys.executable, *arguments],
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


def command(name, workdir, *flags, **settings):
  """Runs a command to its end.

  Nothing but the program's own lines is on standard error.
  """
  flags = (*flags, f"--workdir={workdir}")
  done = process("-m", "xprompt_jax.main", name, *flags, **settings)
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
  """The same run on one device, and on four whose models have one or two."""
  inside = (*flags, "--engine=t5x")
  runs = {"flags": flags, "one": train(folder / "one", *inside)}
  for name, partitions in (("four", 1), ("four_in_pairs", 2)):
    on_four = (*inside, f"--gin.NUM_MODEL_PARTITIONS={partitions}")
    runs[name] = train(folder / name, *on_four, devices=4)
  return runs


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


@pytest.mark.parametrize(
    ("name", "devices"), [("one", 1), ("four", 4), ("four_in_pairs", 4)]
)
def test_a_run_goes_to_its_end(runs, name, devices):
  workdir = runs[name]
  found = summary_of(workdir)
  assert found["config"]["engine"] == "t5x"
  assert found["tickets_tried"] == 2
  facts = artifacts.read_json(workdir / artifacts.RUN)
  assert facts["engine"] == "t5x"
  assert len(facts["devices"]) == devices


@pytest.mark.parametrize("name", ["four", "four_in_pairs"])
@pytest.mark.parametrize("stage", STAGES)
def test_four_devices_train_what_one_does(runs, stage, name):
  check_same(runs[name], runs["one"], stage)


# `t5x` in a process that is killed before T5X names its n-th checkpoint.
KILLED = """
import os, signal, sys
from t5x import checkpoints
from xprompt_jax import main
rename, calls = checkpoints.gfile.rename, int(sys.argv.pop(1))
def killing(*args, **kwargs):
  global calls
  calls -= 1
  if not calls:
    os.kill(os.getpid(), signal.SIGKILL)
  rename(*args, **kwargs)
checkpoints.gfile.rename = killing
main.main()
"""


def test_a_run_killed_twice_goes_on_bit_for_bit(bundled, tmp_path):
  """In the tuning's second step, and in that of the tickets of tokens."""
  flags = (*bundled["flags"], "--engine=t5x", f"--workdir={tmp_path}")
  for calls, stage in ((2, "tune"), (3, "search_token")):
    done = process("-W", "ignore", "-c", KILLED, str(calls), "train", *flags)
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    left = {p.name for p in (tmp_path / stage / "state/row_0").iterdir()}
    assert {"checkpoint_1", "records_1.safetensors"} < left
    assert any(name.startswith("checkpoint_2.tmp-") for name in left)
  train(tmp_path, *bundled["flags"], "--engine=t5x")
  for stage in STAGES:
    for name in (artifacts.PROMPT, artifacts.METRICS):
      expected = (bundled["one"] / stage / name).read_bytes()
      assert (tmp_path / stage / name).read_bytes() == expected


RUNS = """
RUNS = {
    "one": (),
    "two": ("LEARNING_RATE = 0.125",),
}
TASK_FILES = ("tasks/mini_cb.gin", "tasks/mini_rte.gin")
"""


def test_every_run_of_a_sweep_and_task_of_a_suite(tmp_path):
  """The flag is for all of them."""
  file = tmp_path / "runs.gin"
  file.write_text(RUNS)
  flags = (*command_line.TINY, "--gin.SEEDS=(4,)")
  flags = (*flags, "--gin.GRANULARITIES=('token',)", f"--gin_file={file}")
  workdir = tmp_path / "run"
  command("train", workdir, *flags, "--engine=t5x")
  for run in ("one", "two"):
    for task in ("mini_cb", "mini_rte"):
      own = workdir / task / run
      assert summary_of(own)["config"]["engine"] == "t5x"
      assert list((own / "tune/state/row_0").glob("checkpoint_*"))


def test_a_run_leaves_what_a_native_one_leaves(bundled, tmp_path):
  native = train(tmp_path / "native", *bundled["flags"])
  expected, found = summary_of(native), summary_of(bundled["one"])
  del found["config"]["engine"]
  assert found["config"] == expected["config"]
  assert shape_of(found) == shape_of(expected)
  for stage in STAGES:
    check_same(bundled["one"], native, stage)


def test_other_commands_read_the_run(bundled, tmp_path, capsys):
  """`report` and `export` do not know which engine ran."""
  workdir = bundled["one"]
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
def test_other_processes_need_no_t5x(bundled, tmp_path, name, file):
  """They read the folder where T5X cannot be imported."""
  (tmp_path / "t5x.py").write_text("raise ImportError('not here')")
  paths = (str(tmp_path), os.environ.get("PYTHONPATH", ""))
  without = {"PYTHONPATH": os.pathsep.join(paths)}
  assert "not here" in process("-c", "import t5x", **without).stderr
  workdir = bundled["one"]
  printed = command(name, workdir, *bundled["flags"], **without)
  assert printed
  if file is not None:
    assert (workdir / file).exists()
