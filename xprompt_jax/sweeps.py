"""Several settings of one recipe: what RUNS may say, and what it stands for.

`main.py` reads gin files once for each run, with the run's statements after
them; `suite.py` trains the runs. gin itself is not known here.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import pathlib
import re
from typing import Any

from xprompt_jax.errors import UserError

# It becomes a folder.
_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")
_MACRO = re.compile(r"\s*([A-Za-z_]\w*)\s*=(?!=)")
_TARGET = re.compile(r"\s*([A-Za-z_][\w./]*)\s*=(?!=)")
_QUOTED = re.compile(r"'[^'\n]*'|\"[^\"\n]*\"")
_TASK_FILES = "TASK_FILES"
_BRACES = re.compile(r"\{([A-Za-z_]\w*)\}")
_EXPECTED = (
    "a dictionary from names of folders to lists of gin statements, such as"
    " {'length_10': ('PROMPT_LENGTH = 10',)}"
)


def check_runs(found: Any) -> dict[str, tuple[str, ...]]:
  """The runs of a sweep, in their order.

  Args:
    found: the macro RUNS; None and {} are no sweep.

  Returns:
    The statements of each run by its name.

  Raises:
    UserError: it is something else.
  """
  if not found and (found is None or isinstance(found, Mapping)):
    return {}
  if not isinstance(found, Mapping):
    raise UserError(f"RUNS: found {found!r}, expected {_EXPECTED}")
  for name, statements in found.items():
    if not isinstance(name, str) or not _NAME.fullmatch(name):
      raise UserError(
          f"RUNS: found the run {name!r}, expected a name that can be a folder's"
      )
    listed = isinstance(statements, (list, tuple)) and all(
        isinstance(statement, str) for statement in statements
    )
    if not listed:
      raise UserError(
          f"RUNS[{name!r}]: found {statements!r}, expected a list of gin"
          " statements, such as ('PROMPT_LENGTH = 10',)"
      )
    if any("RUNS" in macros_of(statement) for statement in statements):
      raise UserError(
          f"RUNS[{name!r}]: found RUNS among its statements, expected other"
          " macros"
      )
  return {name: tuple(statements) for name, statements in found.items()}


def chosen(
    runs: Mapping[str, tuple[str, ...]], names: Sequence[str]
) -> dict[str, tuple[str, ...]]:
  """The runs that --run names, in the order of RUNS; all where it names none.

  Raises:
    UserError: a name that RUNS does not have.
  """
  for name in names:
    if name not in runs:
      expected = f"one of {', '.join(runs)}" if runs else "gin files with RUNS"
      raise UserError(f"--run={name}: found no such run, expected {expected}")
  return {k: v for k, v in runs.items() if not names or k in names}


def macro_of(statement: str) -> str | None:
  """The macro that a statement sets; None where it does something else."""
  found = _MACRO.match(statement)
  return found and found[1]


def check_bindings(
    run: str, statements: Sequence[str], bindings: Sequence[str]
) -> None:
  """Refuses a binding of the command line that a run's statement sets.

  It would win, and the run would not be what its name says. TASK_FILES is left
  to the run, so that the command line's restricts the runs without their own.

  Args:
    run: its name.
    statements: the run's.
    bindings: of the command line, `NAME=VALUE`.
  """
  own = {name: s for s in statements if (name := target_of(s))}
  for binding in bindings:
    name = target_of(binding)
    if name in own and name != _TASK_FILES:
      raise UserError(
          f"--gin.{binding}: found {name}, which RUNS[{run!r}] sets"
          f" ({own[name]}), expected a macro that no run sets, or --run=NAME of"
          " others"
      )


def not_task_files(
    statements: Sequence[str], bindings: Sequence[str]
) -> list[str]:
  """The bindings of the command line that hold for a run of these statements."""
  has_own = any(target_of(s) == _TASK_FILES for s in statements)
  return [b for b in bindings if not has_own or target_of(b) != _TASK_FILES]


def target_of(statement: str) -> str | None:
  """The macro or parameter that a statement sets; None if it does not bind."""
  found = _TARGET.match(statement)
  return found and found[1]


def macros_of(statement: str) -> list[str]:
  """The macros that the lines of a statement set."""
  found = []
  depth = 0
  for line in statement.splitlines():
    if depth == 0 and line[:1].strip() and (name := macro_of(line)):
      found.append(name)
    bare = _QUOTED.sub("", line).partition("#")[0]
    depth += sum(map(bare.count, "([{")) - sum(map(bare.count, ")]}"))
  return found


def fill(
    statement: str, workdir: pathlib.Path, macro: Callable[[str], Any]
) -> str:
  """Puts values for what stands in braces in a statement of RUNS.

  Args:
    statement: `{workdir}` in it is the folder that all runs of the task are
      in, so that one may start from what another left; `{NAME}` is a macro.
    workdir: that folder.
    macro: the value of a macro of the gin files; None where there is none.

  Returns:
    The statement, with values as they stand between quotes.

  Raises:
    UserError: a macro that has neither a text nor a number.
  """

  def value(match: re.Match[str]) -> str:
    name = match[1]
    found = str(workdir) if name == "workdir" else macro(name)
    if isinstance(found, bool) or not isinstance(found, (str, int, float)):
      raise UserError(
          f"{statement}: {{{name}}}: found {found!r}, expected {{workdir}} or a"
          " macro with a text or a number"
      )
    return re.sub(r"([\\'\"])", r"\\\1", str(found))

  return _BRACES.sub(value, statement)


@contextlib.contextmanager
def naming(run: str) -> Iterator[None]:
  """Puts RUNS and the run's name in front of what is refused; not of no run."""
  try:
    yield
  except UserError as e:
    if not run:
      raise
    raise UserError(f"RUNS[{run!r}]: {e}") from e
