"""The command line: `t5x train --gin_file=xprompt_demo.gin` and its kin.

The only module that knows gin. `flags.py` parses the command line; this module
turns gin files into an `ExperimentConfig`, has `dispatch.py` run the command,
and turns whatever the user can mend into one line and exit status 2. Imports
that load JAX stand inside functions, so that `--help` answers at once.
"""

import argparse
from collections.abc import Sequence
import contextlib
import copy
import difflib
import importlib.util  # gin uses importlib.util without importing it. # noqa: F401
import logging
import os
import pathlib
import re
import sys
from typing import Any

from xprompt_jax import flags, host_memory, sweeps
from xprompt_jax.gin_errors import ERRORS, explain, one_line

_GIN_FOLDER = pathlib.Path(__file__).parent / "gin"
_WHOLE_RECIPE = (
    "a recipe that includes xprompt.gin, a file of models/ and one of tasks/"
)
_WHOLE_MODEL = "the sizes of a T5, as a file of models/ has them"


def _macros() -> dict[str, str]:
  """The macros of the gin files read so far, with their values as text."""
  import gin

  pattern = re.compile(r"^([A-Za-z_]\w*) = (.*)$", re.MULTILINE)
  return dict(pattern.findall(gin.config_str(max_line_length=10_000)))


def _check_macro(name: str, source: str) -> None:
  """Refuses a macro that no gin file knows.

  gin would take a misspelt macro for a new one and go on.
  """
  from xprompt_jax.types import UserError

  macros = _macros()
  if "." in name or "/" in name or name in macros:
    return
  near = difflib.get_close_matches(name, macros, cutoff=0.5)
  hint = f" such as {near[0]}" if near else ""
  raise UserError(
      f"{source}: found no such macro in the gin files, expected one of"
      f" theirs{hint}, or CLASS.PARAMETER"
  )


def _read_gin(
    gin_files: Sequence[str],
    bindings: Sequence[str],
    search_paths: Sequence[str],
    statements: Sequence[str] = (),
) -> None:
  """Parses gin files, statements and bindings, and builds nothing yet.

  Raises:
    UserError: whatever gin cannot find or parse.
  """
  import gin

  from xprompt_jax.types import UserError

  # Whoever calls `main` twice means the second config alone.
  gin.clear_config()
  for folder in (*search_paths, str(_GIN_FOLDER)):
    gin.add_config_file_search_path(folder)
  names = f"--gin_file={', '.join(gin_files)}"
  # gin logs an error for each folder that does not hold the file.
  logging.disable(logging.ERROR)
  try:
    gin.parse_config_files_and_bindings(
        list(gin_files), None, finalize_config=False
    )
    # One by one, so that a mistake is named.
    for names in statements:
      for macro in sweeps.macros_of(names):
        _check_macro(macro, macro)
      gin.parse_config(names)
    for binding in bindings:
      name = binding.partition("=")[0].strip()
      _check_macro(name, f"--gin.{name}")
    for binding in bindings:
      names = f"--gin.{binding}"
      gin.parse_config(binding)
  except UserError:
    raise
  except ERRORS as e:
    raise UserError(explain(e, names, _WHOLE_RECIPE, _macros())) from e
  finally:
    logging.disable(logging.NOTSET)


def parse_gin(
    gin_files: Sequence[str],
    bindings: Sequence[str],
    search_paths: Sequence[str] = (),
    *,
    statements: Sequence[str] = (),
    model_only: bool = False,
) -> Any:
  """Parses gin files and bindings, finalizes, and builds the root config.

  Args:
    gin_files: names or paths.
    bindings: `NAME=VALUE` strings, later than the files.
    search_paths: folders tried before the packaged ones.
    statements: of a run of RUNS, later than the files.
    model_only: build the sizes of the T5 alone.

  Returns:
    An `ExperimentConfig`, or a `T5Config`.

  Raises:
    UserError: whatever gin cannot find, parse or bind.
  """
  import gin

  from xprompt_jax import experiment
  from xprompt_jax.t5.config import T5Config
  from xprompt_jax.types import UserError

  _read_gin(gin_files, bindings, search_paths, statements)
  root = T5Config if model_only else experiment.ExperimentConfig
  try:
    gin.finalize()
    return gin.get_configurable(root)()
  except UserError:
    raise
  except ERRORS as e:
    whole = _WHOLE_MODEL if model_only else _WHOLE_RECIPE
    names = f"--gin_file={', '.join(gin_files)}"
    raise UserError(explain(e, names, whole, _macros())) from e


def _macro(name: str) -> Any:
  """The value of a macro of the gin files; None where there is none."""
  return _bound(f"{name}/gin.macro.value")


def _bound(parameter: str) -> Any:
  """What gin files bind a parameter to, through macros of macros.

  Calls are not made: `@` comes back as gin's reference.
  """
  import gin

  try:
    found = gin.query_parameter(parameter)
  except ValueError:
    return None
  is_reference = isinstance(found, gin.config.ConfigurableReference)
  if is_reference and found.selector == "gin.macro":
    return _bound(f"{found.scoped_selector}.value")
  return found


def _prompt_file() -> str | None:
  from xprompt_jax.types import require

  found = _macro("PROMPT_FILE")
  require(
      found is None or (isinstance(found, str) and bool(found)),
      "PROMPT_FILE",
      found,
      "a path, or None",
  )
  return found


def _vocabulary() -> tuple[str | None, int | None]:
  """VOCABULARY and EXTRA_IDS, where gin files state them.

  `models/from_checkpoint.gin` leaves them to the checkpoint.
  """
  from xprompt_jax.types import require, require_int

  name, extra_ids = _stated("VOCABULARY"), _stated("EXTRA_IDS")
  require(
      name is None or (isinstance(name, str) and bool(name)),
      "VOCABULARY",
      name,
      "a SentencePiece file, 'bundled', 'bytes' or None",
  )
  if extra_ids is not None:
    require_int("EXTRA_IDS", extra_ids, 0)
  return name, extra_ids


def _stated(name: str) -> Any:
  """A macro's value, with calls made; None where it is the checkpoint's own."""
  import gin

  from xprompt_jax.types import UserError
  from xprompt_jax.weights import checkpoints

  try:
    found = _macro(name)
    if isinstance(found, gin.config.ConfigurableReference):
      function = found.configurable
      asks = (checkpoints.vocabulary_of, checkpoints.extra_ids_of)
      if function.wrapped in asks and not found.scopes:
        asked = _bound(f"{function.selector}.checkpoint")
        if asked == _macro("CHECKPOINT"):
          return None
    return copy.deepcopy(found)  # gin makes its calls in copies.
  except UserError:
    raise
  except ERRORS as e:
    raise UserError(f"{name}: {one_line(e)}") from e


def _task_files() -> list[str]:
  """TASK_FILES of the gin files read so far: empty but for a suite."""
  from xprompt_jax.types import require

  found = _macro("TASK_FILES") or ()
  names = isinstance(found, (list, tuple)) and all(
      isinstance(name, str) and name for name in found
  )
  stems = [pathlib.Path(name).stem for name in found] if names else []
  require(
      names and len(set(stems)) == len(stems),
      "TASK_FILES",
      found,
      "a list of gin files with different names",
  )
  return list(found)


def _run(arguments: argparse.Namespace, bindings: Sequence[str]) -> None:
  if arguments.command == "report":
    # Without JAX, which `dispatch` loads.
    from xprompt_jax.html_report import command

    command.run(arguments)
    return
  # Before anything imports TensorFlow.
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
  from xprompt_jax import dispatch

  dispatch.check_engine(arguments)
  search_paths = _search_paths(arguments)
  files = arguments.gin_file
  if arguments.command == "import":
    model, vocabulary, extra_ids = None, None, None
    if files:
      model = parse_gin(files, bindings, search_paths, model_only=True)
      vocabulary, extra_ids = _vocabulary()
    dispatch.convert(arguments, model, vocabulary, extra_ids)
    return
  if arguments.command == "similarity":
    dispatch.compare(arguments)
    return
  workdir = pathlib.Path(
      arguments.workdir or f"runs/{pathlib.Path(files[-1]).stem}"
  )
  _read_gin(files, bindings, search_paths)
  runs = sweeps.check_runs(_macro("RUNS"))
  chosen = sweeps.chosen(runs, arguments.run)
  # All are parsed first: a mistake is found before hours of the first run.
  calls = {}
  for run, statements in chosen.items():
    sweeps.check_bindings(run, statements, bindings)
  for run, statements in chosen.items() or [("", ())]:
    own = sweeps.not_task_files(statements, bindings)
    with sweeps.naming(run):
      calls.update(
          _calls(arguments, own, workdir, run=run, statements=statements)
      )
  if list(calls) == [""]:
    dispatch.run(calls[""])
  else:
    dispatch.run_suite(calls, workdir, is_sweep=bool(runs))


def _calls(
    arguments: argparse.Namespace,
    bindings: Sequence[str],
    workdir: pathlib.Path,
    *,
    run: str,
    statements: Sequence[str],
) -> dict[str, Any]:
  """What to call for each task of a run, by name: TASK, RUN or TASK/RUN.

  Args:
    arguments: the command's flags.
    bindings: of the command line.
    workdir: of the command.
    run: name of a run of RUNS; "" without RUNS.
    statements: the run's.
  """
  from xprompt_jax import dispatch

  search_paths = _search_paths(arguments)

  def read(folder: pathlib.Path, *task_file: str) -> list[str]:
    """Reads all files with the run's statements; returns these, filled."""
    files = [*arguments.gin_file, *task_file]
    # Once to know the macros.
    _read_gin(files, bindings, search_paths, statements)
    filled = [sweeps.fill(s, folder, _macro) for s in statements]
    _read_gin(files, bindings, search_paths, filled)
    return filled

  def call(name: str, *task_file: str) -> dispatch.Call:
    files = [*arguments.gin_file, *task_file]
    filled = read((workdir / name).parent if run else workdir, *task_file)
    config = parse_gin(files, bindings, search_paths, statements=filled)
    import gin

    return dispatch.Call(
        arguments=arguments,
        config=dispatch.with_engine(config, arguments),
        workdir=workdir / name,
        prompt_file=_prompt_file(),
        gin_config=gin.operative_config_str(),
    )

  read(workdir)
  # A run may have tasks of its own.
  task_files = _task_files()
  if not task_files:
    return {run: call(run)}
  names = [str(pathlib.PurePath(pathlib.Path(f).stem, run)) for f in task_files]
  return {n: call(n, file) for n, file in zip(names, task_files, strict=True)}


def _search_paths(arguments: argparse.Namespace) -> list[str]:
  return [path for path in arguments.gin_search_paths.split(",") if path]


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one command.

  Args:
    argv: arguments; None means those of the process.

  Returns:
    0, or 2 after a mistake that the user can mend; bugs raise.
  """
  arguments, bindings = flags.parse_arguments(
      sys.argv[1:] if argv is None else argv
  )
  host_memory.keep_freed_memory()
  from xprompt_jax.errors import mendable

  try:
    _run(arguments, bindings)
    sys.stdout.flush()
  except KeyboardInterrupt:
    goes_on = arguments.command == "train"
    hint = "; the same command goes on from here" if goes_on else ""
    print(f"t5x: stopped{hint}", file=sys.stderr)
    return 130
  except BrokenPipeError:
    # The reader of a pipe went away.
    _discard_output()
  except Exception as e:
    message = mendable(e)
    if message is None:
      raise
    if isinstance(e, OSError):
      _discard_output()
    print(f"t5x: {message}", file=sys.stderr)
    return 2
  return 0


def _discard_output() -> None:
  """Keeps Python from writing what is left of standard output at exit."""
  with contextlib.suppress(OSError, ValueError):
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
  sys.exit(main())
