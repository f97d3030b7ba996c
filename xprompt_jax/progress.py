"""What a long stage shows: a bar on a terminal, plain lines elsewhere.

Scalars go to TensorBoard as well. Everything here is for the eyes: results
are written by `artifacts.py`.
"""

from collections.abc import Mapping
import contextlib
import pathlib
import socket
import sys
import time

import rich.console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from tensorboardX import summary
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import RecordWriter

from xprompt_jax.types import UserError

# Plain lines are for log files: this many seconds apart at least, those that
# bring no new result farther.
_RESULT_SECONDS = 10.0
_QUIET_SECONDS = 30.0


def duration(seconds: float) -> str:
  """Seconds in words, in two units at most: `8 s`, `3 min`, `2 h 5 min`."""
  whole = round(seconds)
  if whole < 100:
    return f"{whole} s"
  minutes = round(whole / 60)
  if minutes < 100:
    return f"{minutes} min"
  return f"{minutes // 60} h {minutes % 60} min"


class Reporter:
  """Shows the progress of one stage; a context manager.

  Attributes:
    console: where lines go; standard error, so that results can be piped.
  """

  def __init__(
      self,
      name: str,
      total: int,
      tensorboard: pathlib.Path | None = None,
      first: int = 0,
  ):
    """Prepares a bar.

    Args:
      name: what is under way, such as `tune`.
      total: steps in all.
      tensorboard: folder of the event files; None writes none.
      first: steps that an earlier process has done; the time left is reckoned
        from the others.
    """
    self.console = rich.console.Console(stderr=True, highlight=False)
    self._name = name
    self._total = total
    self._first = first
    self._folder = tensorboard
    self._writer: RecordWriter | None = None
    self._values: dict[str, float] = {}
    self._started = time.monotonic()
    self._last_line = float("-inf")
    one_line = Column(no_wrap=True)
    self._bar = Progress(
        TextColumn("{task.description}", table_column=one_line),
        BarColumn(bar_width=None, table_column=Column(max_width=24)),
        MofNCompleteColumn(table_column=one_line),
        TextColumn(
            "{task.fields[status]}",
            table_column=Column(no_wrap=True, overflow="ellipsis"),
        ),
        TimeRemainingColumn(compact=True, table_column=one_line),
        console=self.console,
        disable=not sys.stderr.isatty(),
    )
    self._task = self._bar.add_task(
        name, total=total, completed=first, status=""
    )

  def __enter__(self) -> "Reporter":
    self._bar.start()
    return self

  def __exit__(self, *unused) -> None:
    self._bar.stop()
    if self._writer is not None:
      # What could not be written has been reported by `scalars`.
      with contextlib.suppress(OSError):
        self._writer.close()

  def update(
      self, step: int, values: Mapping[str, float], *, result: bool = False
  ) -> None:
    """Moves the bar, or prints a line if the last one is old enough.

    Args:
      step: steps done in all.
      values: what to show, such as the loss; what was shown before and is not
        among them stays.
      result: whether they are an evaluation's, which is worth a line sooner.
    """
    self._values |= values
    status = ", ".join(f"{k} {v:.4g}" for k, v in self._values.items())
    self._bar.update(self._task, completed=step, status=status)
    if not self._bar.disable:
      return
    now = time.monotonic()
    apart = _RESULT_SECONDS if result else _QUIET_SECONDS
    since = now - max(self._last_line, self._started if not result else 0.0)
    if (result and step == self._total) or since >= apart:
      self._last_line = now
      words = (f"{self._name}: {step}/{self._total}", status, self._left(step))
      line = " ".join(word for word in words if word)
      self.console.print(line, soft_wrap=True)

  def _left(self, step: int) -> str:
    done = step - self._first
    if done <= 0 or step == self._total:
      return ""
    seconds = (time.monotonic() - self._started) / done * (self._total - step)
    return f"({duration(seconds)} left)"

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """Writes scalars to TensorBoard under the stage's name.

    Raises:
      UserError: the folder cannot be written, or the disk is full.
    """
    if self._folder is None:
      return
    folder = self._folder / self._name
    try:
      # tensorboardX's SummaryWriter writes in a thread, where a full disk would
      # block the run; its records can be written without.
      if self._writer is None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}"
        self._writer = RecordWriter(str(folder / name))
        _write(self._writer, file_version="brain.Event:2")
      for name, value in values.items():
        _write(self._writer, step=step, summary=summary.scalar(name, value))
      self._writer.flush()
    except OSError as e:
      raise UserError(f"{folder}: cannot write: {e.strerror or e}") from e


def _write(writer: RecordWriter, **fields) -> None:
  event = event_pb2.Event(wall_time=time.time(), **fields)
  writer.write(event.SerializeToString())
