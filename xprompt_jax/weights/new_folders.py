"""Output folders that appear whole or not at all.

What goes into one is written under another name and moved when it is done.
"""

from collections.abc import Iterator
import contextlib
import os
import pathlib
import shutil

from xprompt_jax.types import UserError


def check_free(folder: pathlib.Path) -> None:
  """Refuses a path that holds anything.

  Args:
    folder: does not exist, or is an empty folder or a link to one.

  Raises:
    UserError: it is something else, or cannot be looked into.
  """
  try:
    if not os.path.lexists(folder):
      return
    if folder.is_dir() and not any(folder.iterdir()):
      return
  except OSError as e:
    raise UserError(f"{folder}: cannot write: {e.strerror or e}") from e
  raise UserError(f"{folder}: exists, expected a new or an empty folder")


@contextlib.contextmanager
def new_folder(
    folder: pathlib.Path, *, last: str | None = None
) -> Iterator[pathlib.Path]:
  """Gives a temporary folder; its files are in `folder` if the block ends well.

  An empty folder stays the one it is: it may be where the program was started,
  a mount or a link. Otherwise nothing is left where the block fails, and none
  of the folders above that were made for it.

  Args:
    folder: as for `check_free`.
    last: the file that appears in an empty folder when all others are there.

  Raises:
    UserError: the folder is taken or cannot be written. Messages of the block
      name `folder` in place of the temporary one.
  """
  check_free(folder)
  # `.` and `..` have no names of their own.
  target = pathlib.Path(os.path.realpath(folder))
  exists = target.is_dir()
  parent = target if exists else target.parent
  temporary = parent / f".{target.name}.{os.getpid()}.part"
  try:
    with _nothing_left(temporary):
      temporary.mkdir(parents=True)
      yield temporary
      if exists:
        _move_files(temporary, target, folder, last)
      else:
        os.replace(temporary, target)
  except OSError as e:
    raise UserError(f"{folder}: cannot write: {e.strerror or e}") from e
  except UserError as e:
    message = str(e).replace(str(temporary), str(folder))
    raise UserError(message) from e


@contextlib.contextmanager
def _nothing_left(temporary: pathlib.Path) -> Iterator[None]:
  """Removes the folder; where the block fails, those above that it made too."""
  made = [p for p in temporary.parents if not os.path.lexists(p)]
  try:
    yield
  except BaseException:
    shutil.rmtree(temporary, ignore_errors=True)
    for path in made:
      with contextlib.suppress(OSError):
        path.rmdir()
    raise
  shutil.rmtree(temporary, ignore_errors=True)


def _move_files(
    temporary: pathlib.Path,
    target: pathlib.Path,
    folder: pathlib.Path,
    last: str | None,
) -> None:
  """Moves the files to a folder that was empty, all of them or none."""
  # Somebody may have put files there meanwhile; they are not overwritten.
  if os.listdir(target) != [temporary.name]:
    raise UserError(f"{folder}: is no longer empty, expected an empty folder")
  names = sorted(os.listdir(temporary), key=lambda name: (name == last, name))
  moved: list[pathlib.Path] = []
  try:
    for name in names:
      os.replace(temporary / name, target / name)
      moved.append(target / name)
  except BaseException:
    for path in moved:
      with contextlib.suppress(OSError):
        path.unlink()
    raise
