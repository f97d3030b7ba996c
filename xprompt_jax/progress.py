"""What a long stage shows: a bar on a terminal, plain lines elsewhere.

Scalars go to TensorBoard as well. Everything here is for the eyes: results
are written by `artifacts.py`.
"""

from collections.abc import Mapping
import pathlib
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
from tensorboardX import SummaryWriter

# Plain lines are for log files: not more often than this many seconds.
_LINE_SECONDS = 10.0


class Reporter:
  """Shows the progress of one stage; a context manager.

  Attributes:
    console: where lines go; standard error, so that results can be piped.
  """

  def __init__(
      self, name: str, total: int, tensorboard: pathlib.Path | None = None
  ):
    """Prepares a bar.

    Args:
      name: what is under way, such as `tune`.
      total: steps in all.
      tensorboard: folder of the event files; None writes none.
    """
    self.console = rich.console.Console(stderr=True, highlight=False)
    self._name = name
    self._total = total
    self._folder = tensorboard
    self._writer: SummaryWriter | None = None
    self._started = self._last_line = time.monotonic()
    self._bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}"),
        TimeRemainingColumn(),
        console=self.console,
        disable=not sys.stderr.isatty(),
    )
    self._task = self._bar.add_task(name, total=total, status="")

  def __enter__(self) -> "Reporter":
    self._bar.start()
    return self

  def __exit__(self, *unused) -> None:
    self._bar.stop()
    if self._writer is not None:
      self._writer.close()

  def update(self, step: int, status: str = "", force: bool = False) -> None:
    """Moves the bar, or prints a line if the last one is old enough.

    Args:
      step: steps done.
      status: loss and metric, in words.
      force: print the line in any case.
    """
    self._bar.update(self._task, completed=step, status=status)
    now = time.monotonic()
    if self._bar.disable and (force or now - self._last_line > _LINE_SECONDS):
      self._last_line = now
      left = (now - self._started) / max(step, 1) * (self._total - step)
      self.console.print(
          f"{self._name}: {step}/{self._total} {status} ({left:.0f} s left)",
          soft_wrap=True,
      )

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """Writes scalars to TensorBoard under the stage's name."""
    if self._folder is None:
      return
    if self._writer is None:
      self._writer = SummaryWriter(str(self._folder / self._name))
    for name, value in values.items():
      self._writer.add_scalar(name, value, step)
