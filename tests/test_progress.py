"""What a stage shows while it runs, on a terminal and in a log file."""

import time

import pytest
from tensorboardX.record_writer import RecordWriter

from xprompt_jax import progress
from xprompt_jax.types import UserError


class _Clock:
  """A time that tests move."""

  now = 1000.0

  def __call__(self) -> float:
    return self.now


@pytest.fixture
def clock(monkeypatch):
  clock = _Clock()
  monkeypatch.setattr(time, "monotonic", clock)
  return clock


def test_lines_are_few_and_say_how_long(capsys, clock):
  with progress.Reporter("tune", 100) as reporter:
    for step in range(1, 101):
      clock.now += 2
      reporter.update(step, {"loss": 3 / step})
      if step % 4 == 0:
        scores = {"validation": 50 + step / 8, "best": 62.5}
        reporter.update(step, scores, result=True)
  lines = capsys.readouterr().err.splitlines()
  assert lines[0] == (
      "tune: 4/100 loss 0.75, validation 50.5, best 62.5 (3 min left)"
  )
  assert lines[1] == (
      "tune: 12/100 loss 0.25, validation 51.5, best 62.5 (3 min left)"
  )
  assert lines[-1] == "tune: 100/100 loss 0.03, validation 62.5, best 62.5"
  assert len(lines) < 200 / 10 + 2


def test_steps_of_an_earlier_process_do_not_count_as_time(capsys, clock):
  with progress.Reporter("tune", 200, first=100) as reporter:
    clock.now += 20
    reporter.update(110, {"loss": 0.5}, result=True)
  # 10 steps in 20 s; 90 are left.
  assert capsys.readouterr().err == ("tune: 110/200 loss 0.5 (3 min left)\n")


def test_lines_are_not_wrapped(capsys, clock, monkeypatch):
  monkeypatch.setenv("COLUMNS", "40")
  with progress.Reporter("search_token", 12000) as reporter:
    scores = {"loss": 0.25, "validation": 52.5, "best": 53.5}
    reporter.update(12000, scores, result=True)
  assert capsys.readouterr().err == (
      "search_token: 12000/12000 loss 0.25, validation 52.5, best 53.5\n"
  )


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 s"),
        (99.4, "99 s"),
        (100, "2 min"),
        (5940, "99 min"),
        (7500, "2 h 5 min"),
    ],
)
def test_duration(seconds, words):
  assert progress.duration(seconds) == words


def test_scalars_are_on_disk_at_once(tmp_path):
  with progress.Reporter("tune", 2, tmp_path) as reporter:
    reporter.scalars(1, {"loss": 0.5})
    (file,) = (tmp_path / "tune").iterdir()
    assert b"loss" in file.read_bytes()


def test_disk_that_fills_up_ends_the_stage(tmp_path, monkeypatch):
  def full(self):
    raise OSError(28, "No space left on device")

  with progress.Reporter("tune", 2, tmp_path) as reporter:
    reporter.scalars(1, {"loss": 0.5})
    monkeypatch.setattr(RecordWriter, "flush", full)
    with pytest.raises(UserError) as raised:
      reporter.scalars(2, {"loss": 0.25})
  assert str(raised.value) == (
      f"{tmp_path}/tune: cannot write: No space left on device"
  )
