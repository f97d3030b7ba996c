"""Output folders that appear whole or not at all.

What goes into one is written under another name and moved when it is done.
"""

from collections.abc import Iterator
import contextlib
import errno
import os
import pathlib
import secrets
import shutil

from xprompt_jax.types import UserError


def check_free(folder: pathlib.Path) -> None:
  """Refuses a path that holds anything, or where no folder can be made.

  Args:
    folder: does not exist, or is an empty folder or a link to one.

  Raises:
    UserError: it is something else, or cannot be looked into or written.
  """
  with _errors_name(folder):
    _check_nothing_there(folder)
    # What the system allows is found out only by trying.
    with _temporary_folder(_place_beside(folder)) as temporary:
      # The name may be one that no folder can have.
      (temporary / os.path.basename(os.path.realpath(folder))).mkdir()


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
  with _errors_name(folder):
    _check_nothing_there(folder)
    target = pathlib.Path(os.path.realpath(folder))
    exists = target.is_dir()
    with _temporary_folder(_place_beside(folder)) as temporary:
      try:
        yield temporary
      except UserError as e:
        message = str(e).replace(str(temporary), str(folder))
        raise UserError(message) from e
      if exists:
        _move_files(temporary, target, folder, last)
      else:
        os.replace(temporary, target)


@contextlib.contextmanager
def _errors_name(folder: pathlib.Path) -> Iterator[None]:
  try:
    yield
  except OSError as e:
    raise UserError(f"{folder}: cannot write: {e.strerror or e}") from e


def _check_nothing_there(folder: pathlib.Path) -> None:
  try:
    # `lexists` takes names that are too long for names that are free.
    folder.lstat()
  except (FileNotFoundError, NotADirectoryError):
    return
  if not folder.is_dir() or any(folder.iterdir()):
    raise UserError(f"{folder}: exists, expected a new or an empty folder")


def _place_beside(folder: pathlib.Path) -> pathlib.Path:
  """The folder for the temporary one: on the same disk, if not a mount."""
  # `.` and `..` have no names of their own.
  target = pathlib.Path(os.path.realpath(folder))
  return target if target.is_dir() else target.parent


@contextlib.contextmanager
def _temporary_folder(parent: pathlib.Path) -> Iterator[pathlib.Path]:
  """An empty folder of a name of its own; what is in it at the end is removed.

  So are the folders above that were made for it, if they hold nothing else.
  """
  # Process ids are the same in two containers that share a disk.
  temporary = parent / f".{secrets.token_hex(8)}.part"
  made = [p for p in temporary.parents if not os.path.lexists(p)]
  try:
    _make_folders(parent)
    temporary.mkdir()
    # From here on it is this process's own.
    try:
      yield temporary
    finally:
      shutil.rmtree(temporary, ignore_errors=True)
  finally:
    for path in made:
      with contextlib.suppress(OSError):
        path.rmdir()


def _make_folders(path: pathlib.Path) -> None:
  try:
    path.mkdir(parents=True, exist_ok=True)
  except FileExistsError as e:
    message = os.strerror(errno.ENOTDIR)
    raise NotADirectoryError(errno.ENOTDIR, message, str(path)) from e


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
