"""Going on from T5X's checkpoints: killed, damaged, on a full disk."""

import dataclasses
import errno

import jax
import numpy as np
import pytest

from tests import t5x_required, t5x_tables
from tests.t5x_examples import allowed
from xprompt_jax import artifacts
from xprompt_jax.types import PromptMasks, UserError

checkpoints = t5x_required.t5x_module("t5x.checkpoints")
tf = checkpoints.tf

pytestmark = [pytest.mark.t5x, pytest.mark.filterwarnings("ignore")]
# The fixture of every test here as well.
__all__ = ["allowed"]

# Blocks of steps end at 3, 6, ... where a state is saved, and at 20, where the
# loss is looked at; it is summed over all of them until the evaluation at 25.
LONG = {"num_steps": 25, "eval_every_steps": 25, "save_every_steps": 3}


@pytest.fixture(scope="module")
def engines():
  """Shared, so that the step is compiled once."""
  made = t5x_tables.make_engines()
  yield made
  made.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory, engines):
  """The files of 25 steps that nothing stopped."""
  folder = tmp_path_factory.mktemp("whole")
  # Made before the fixture that allows it.
  with jax.numpy_rank_promotion("allow"):
    trained = t5x_tables.make_inside(folder, engines, **LONG).train(
        t5x_tables.start_of()
    )
  return trained.trained["prompt"], (folder / artifacts.METRICS).read_bytes()


@pytest.mark.parametrize(("saves", "step"), [(1, 0), (7, 18)])
def test_a_run_that_is_killed_inside_t5xs_save(
    engines, whole, tmp_path, monkeypatch, saves, step
):
  """What it left is removed; losses since the last evaluation are kept."""
  with monkeypatch.context() as patch:
    rename = t5x_tables.stopping(checkpoints.gfile.rename, saves)
    patch.setattr(checkpoints.gfile, "rename", rename)
    with pytest.raises(t5x_tables.Stopped):
      t5x_tables.make_inside(tmp_path, engines, **LONG).train(
          t5x_tables.start_of()
      )
  row = tmp_path / "state" / "row_0"
  left = sorted(p.name for p in row.iterdir())
  assert any(".tmp-" in name for name in left)
  assert (f"checkpoint_{step}" in left) == (step > 0)
  if step:
    records = artifacts.load_arrays(row / f"records_{step}.safetensors")
    assert records["loss_steps"] == step
    assert records["loss_sum"] > 0.0
  again = t5x_tables.make_inside(tmp_path, engines, **LONG)
  # A state that was saved is where it goes on, so this is not looked at.
  start = {"prompt": np.zeros((1, 5, 12), np.float32)}
  found = again.train(start if step else t5x_tables.start_of())
  prompt, metrics = whole
  np.testing.assert_array_equal(found.trained["prompt"], prompt)
  assert (tmp_path / artifacts.METRICS).read_bytes() == metrics
  assert sorted(p.name for p in row.iterdir()) == [
      "checkpoint_25",
      "metrics.jsonl",
      "records_25.safetensors",
  ]


@pytest.fixture
def three(tmp_path, engines):
  """A table of one row after three steps, told to take six."""
  trainer = t5x_tables.make_inside(tmp_path, engines)
  trainer.train(t5x_tables.start_of())
  return t5x_tables.more_steps(trainer, 6)


def refused(trainer):
  with pytest.raises(UserError) as error:
    trainer.train(t5x_tables.start_of())
  message = str(error.value)
  assert "\n" not in message
  return message


def row_of(trainer):
  return trainer.folder / "state" / "row_0"


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        (
            "target.encoder.prompt.prompt.prompt",
            "target/encoder/prompt/prompt/prompt",
        ),
        (
            "state.param_states.encoder.prompt.prompt.prompt.v",
            "state/param_states/encoder/prompt/prompt/prompt/v",
        ),
        (
            "target.encoder.prompt.token_mask",
            "target/encoder/prompt/token_mask",
        ),
        (
            "target.encoder.prompt.piece_mask",
            "target/encoder/prompt/piece_mask",
        ),
    ],
)
def test_a_part_that_is_gone(three, folder, name):
  """T5X alone would go on from zeros."""
  row = row_of(three)
  for chunk in (row / "checkpoint_3" / folder).glob("[0-9]*"):
    chunk.unlink()
  assert refused(three) == (
      f"{row}/checkpoint_3: {name}: contents have another sha256 than"
      f" {row}/records_3.safetensors states: the checkpoint is damaged; without"
      f" {row} the row is trained afresh"
  )


def test_a_checkpoint_of_other_masks(three):
  masks = three.constants
  others = PromptMasks(
      token_mask=masks.token_mask, piece_mask=1.0 - masks.piece_mask
  )
  row = row_of(three)
  assert refused(dataclasses.replace(three, constants=others)) == (
      f"{row}/checkpoint_3: target/encoder/prompt/piece_mask: found another"
      " mask, expected that of the row's ticket"
  )


def test_a_checkpoint_that_t5x_cannot_read(three):
  row = row_of(three)
  (row / "checkpoint_3" / "checkpoint").write_bytes(b"")
  message = refused(three)
  assert message.startswith(f"{row}/checkpoint_3: T5X cannot read it (")
  assert message.endswith(f"; without {row} the row is trained afresh")


def raising(error):
  def function(*args, **kwargs):
    raise error

  return function


@pytest.mark.parametrize(
    "error",
    [
        ValueError("RESOURCE_EXHAUSTED: Too many open files [source='a.cc']"),
        tf.errors.ResourceExhaustedError(None, None, "Too many open files"),
    ],
)
def test_a_machine_that_cannot_read_now(three, monkeypatch, error):
  """Nobody is told to remove a good state."""
  monkeypatch.setattr(checkpoints.Checkpointer, "restore", raising(error))
  assert refused(three) == (
      f"{row_of(three)}/checkpoint_3: cannot read: Too many open files"
  )


def test_what_the_system_refuses_is_told_as_it_is(three, monkeypatch):
  error = PermissionError(errno.EACCES, "Permission denied", "file")
  monkeypatch.setattr(checkpoints.Checkpointer, "restore", raising(error))
  with pytest.raises(PermissionError):
    three.train(t5x_tables.start_of())


@pytest.mark.parametrize(
    ("owner", "name", "error"),
    [
        (
            "ts",
            "open",
            ValueError("RESOURCE_EXHAUSTED: No space left on device [a='b']"),
        ),
        (
            "gfile",
            "rename",
            tf.errors.ResourceExhaustedError(
                None, None, "No space left on device"
            ),
        ),
        (
            "gfile",
            "makedirs",
            OSError(errno.ENOSPC, "No space left on device"),
        ),
    ],
)
def test_a_full_disk(three, monkeypatch, owner, name, error):
  """The last good state is kept, and half a new one is not."""
  with monkeypatch.context() as patch:
    save = checkpoints.Checkpointer.save

    def full(*args, **kwargs):
      # Restoring has opened what it reads by now.
      patch.setattr(getattr(checkpoints, owner), name, raising(error))
      return save(*args, **kwargs)

    patch.setattr(checkpoints.Checkpointer, "save", full)
    row = row_of(three)
    assert refused(three) == (
        f"{row}/checkpoint_6: cannot write: No space left on device"
    )
  assert sorted(p.name for p in row.iterdir()) == [
      "checkpoint_3",
      "metrics.jsonl",
      "records_3.safetensors",
  ]
  assert three.train(t5x_tables.start_of()).num_steps == 6
