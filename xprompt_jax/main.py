"""The command line: `t5x train --gin_file=xprompt_demo.gin` and its kin.

The only module that knows gin. `flags.py` parses the command line; this module
turns gin files into an `ExperimentConfig`, has `dispatch.py` run the command,
and turns whatever the user can mend into one line and exit status 2. Imports
that load JAX stand inside functions, so that `--help` answers at once.
"""

import argparse
from collections.abc import Sequence
import contextlib
import dataclasses
import difflib
import importlib.util  # gin uses importlib.util without importing it. # noqa: F401
import logging
import os
import pathlib
import re
import sys
import tokenize
from typing import Any

from xprompt_jax import flags

_GIN_FOLDER = pathlib.Path(__file__).parent / "gin"
_VALUES = "10, 0.5, 'text', (1, 2), True or None"
# What gin, and the files it imports, raise for a mistake in them.
_GIN_ERRORS = (
    AttributeError,
    ImportError,
    KeyError,
    NameError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    tokenize.TokenError,
)
_WHOLE_RECIPE = (
    "a recipe that includes xprompt.gin, a file of models/ and one of tasks/"
)
_WHOLE_MODEL = "the sizes of a T5, as a file of models/ has them"


def _one_line(text: object) -> str:
  return " ".join(str(text).split())


def _macros() -> dict[str, str]:
  """The macros of the gin files read so far, with their values as text."""
  import gin

  pattern = re.compile(r"^([A-Za-z_]\w*) = (.*)$", re.MULTILINE)
  return dict(pattern.findall(gin.config_str(max_line_length=10_000)))


def _check_macros(bindings: Sequence[str]) -> None:
  """Refuses a macro on the command line that no gin file knows.

  gin would take a misspelt macro for a new one and go on.
  """
  from xprompt_jax.types import UserError

  macros = _macros()
  for binding in bindings:
    name = binding.partition("=")[0].strip()
    if "." in name or "/" in name or name in macros:
      continue
    near = difflib.get_close_matches(name, macros, cutoff=0.5)
    hint = f" such as {near[0]}" if near else ""
    raise UserError(
        f"--gin.{name}: found no such macro in the gin files, expected one of"
        f" theirs{hint}, or CLASS.PARAMETER"
    )


def _config_parameters() -> dict[str, list[str]]:
  """The parameters of each config class that gin can bind, by its name."""
  from xprompt_jax import experiment

  root = experiment.ExperimentConfig
  classes = [root, *(f.type for f in dataclasses.fields(root))]
  return {
      c.__name__: [f.name for f in dataclasses.fields(c)]
      for c in classes
      if isinstance(c, type) and dataclasses.is_dataclass(c)
  }


def _explain_name(text: str) -> str | None:
  """What gin says of a name it does not know, as found and expected."""
  if m := re.match(r"Configurable '(.+?)' doesn't have a .* '(.+?)'", text):
    known = _config_parameters().get(m[1].rpartition(".")[2], [])
    expected = f", expected one of {', '.join(known)}" if known else ""
    return f"found no parameter {m[2]!r} of {m[1]}{expected}"
  if m := re.match(r"No configurable matching (?:reference )?'@?(.+?)'", text):
    classes = ", ".join(_config_parameters())
    return f"found no class {m[1]!r}, expected one of {classes}"
  if m := re.match(r"No bindings specified for '(.+?)/gin.macro'", text):
    return f"found no macro {m[1]!r}, expected the gin files to set %{m[1]}"
  if m := re.match(r"No module named '(.+?)'", text):
    return f"found no Python module {m[1]!r}, expected one that is installed"
  return None


def _explain(error: Exception, source: str, whole: str) -> str:
  """One line for what gin refuses: where, what was found, what was expected.

  Args:
    error: as gin raised it.
    source: the flag that was being read.
    whole: which gin files are enough.
  """
  text = _one_line(error)
  if m := re.search(r'In file "(.+?)", line (\d+)', text):
    source = f"{m[1]}, line {m[2]}"
  if m := re.match(r"Unable to open file: (.+?)\. Searched", text):
    recipes = sorted(path.name for path in _GIN_FOLDER.glob("xprompt_*.gin"))
    return (
        f"{source}: found no file {m[1]}, expected a path, a file in"
        f" --gin_search_paths, or one of {', '.join(recipes)}"
    )
  if "set to `%gin.REQUIRED`" in text:
    missing = [k for k, v in _macros().items() if v == "%gin.REQUIRED"]
    return (
        f"{', '.join(missing) or source}: found no value, expected a gin file"
        " that sets it, or --gin.NAME=VALUE"
    )
  if isinstance(error, tokenize.TokenError):
    return f"{source}: found a bracket that is not closed, expected NAME=VALUE"
  if isinstance(error, SyntaxError):
    if error.filename:
      line = (error.text or "").strip()
      source = f"{error.filename}, line {error.lineno}: {line!r}"
    return (
        f"{source}: found no Python value, expected NAME=VALUE with {_VALUES}"
    )
  if "'> in the Gin registry" in text or (
      isinstance(error, TypeError) and "missing" in text
  ):
    return f"{source}: found no whole configuration, expected {whole}"
  if explained := _explain_name(text):
    return f"{source}: {explained}"
  # gin adds the call in which a config refused its fields.
  return f"{source}: {text.partition(' In call to configurable')[0]}"


def _read_gin(
    gin_files: Sequence[str],
    bindings: Sequence[str],
    search_paths: Sequence[str],
) -> None:
  """Parses gin files and bindings, and builds nothing yet.

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
    _check_macros(bindings)
    for binding in bindings:
      # One by one, so that a mistake is named.
      names = f"--gin.{binding}"
      gin.parse_config(binding)
  except UserError:
    raise
  except _GIN_ERRORS as e:
    raise UserError(_explain(e, names, _WHOLE_RECIPE)) from e
  finally:
    logging.disable(logging.NOTSET)


def parse_gin(
    gin_files: Sequence[str],
    bindings: Sequence[str],
    search_paths: Sequence[str] = (),
    *,
    model_only: bool = False,
) -> Any:
  """Parses gin files and bindings, finalizes, and builds the root config.

  Args:
    gin_files: names or paths.
    bindings: `NAME=VALUE` strings, later than the files.
    search_paths: folders tried before the packaged ones.
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

  _read_gin(gin_files, bindings, search_paths)
  root = T5Config if model_only else experiment.ExperimentConfig
  try:
    gin.finalize()
    return gin.get_configurable(root)()
  except UserError:
    raise
  except _GIN_ERRORS as e:
    whole = _WHOLE_MODEL if model_only else _WHOLE_RECIPE
    names = f"--gin_file={', '.join(gin_files)}"
    raise UserError(_explain(e, names, whole)) from e


def _macro(name: str) -> Any:
  """The value of a macro of the gin files read so far, or None."""
  import gin

  try:
    return gin.query_parameter(f"{name}/gin.macro.value")
  except ValueError:
    return None


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
  # Before anything imports TensorFlow.
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
  from xprompt_jax import dispatch

  search_paths = [p for p in arguments.gin_search_paths.split(",") if p]
  files = arguments.gin_file
  if arguments.command == "import":
    model = None
    if files:
      model = parse_gin(files, bindings, search_paths, model_only=True)
    dispatch.convert(arguments, model)
    return
  if arguments.command == "similarity":
    dispatch.compare(arguments)
    return
  workdir = pathlib.Path(
      arguments.workdir or f"runs/{pathlib.Path(files[-1]).stem}"
  )
  _read_gin(files, bindings, search_paths)
  task_files = _task_files()

  def call(files: Sequence[str], workdir: pathlib.Path) -> dispatch.Call:
    config = parse_gin(files, bindings, search_paths)
    import gin

    return dispatch.Call(
        arguments=arguments,
        config=config,
        workdir=workdir,
        prompt_file=_prompt_file(),
        gin_config=gin.operative_config_str(),
    )

  if not task_files:
    dispatch.run(call(files, workdir))
    return
  # All are parsed first: a mistake is found before hours of the first task.
  calls = {}
  for name in task_files:
    stem = pathlib.Path(name).stem
    calls[stem] = call([*files, name], workdir / stem)
  dispatch.run_suite(calls, workdir)


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
  from xprompt_jax.types import UserError

  try:
    _run(arguments, bindings)
    sys.stdout.flush()
  except UserError as e:
    # A config refused its fields while gin built it.
    message = str(e).partition("\n  In call to configurable")[0]
    print(f"t5x: {_one_line(message)}", file=sys.stderr)
    return 2
  except RuntimeError as e:
    # JAX's own error type is a RuntimeError, and importing JAX is slow.
    if "RESOURCE_EXHAUSTED" not in str(e):
      raise
    print(
        "t5x: the device is out of memory, expected less at once: ROWS_PER_CHUNK,"
        " ExperimentConfig.eval_batch_size or score_batch_size smaller, or"
        " T5Config.remat = True; finished stages are kept",
        file=sys.stderr,
    )
    return 2
  except KeyboardInterrupt:
    goes_on = arguments.command == "train"
    hint = "; the same command goes on from here" if goes_on else ""
    print(f"t5x: stopped{hint}", file=sys.stderr)
    return 130
  except BrokenPipeError:
    # The reader of a pipe went away.
    _discard_output()
  except OSError as e:
    _discard_output()
    name = e.filename or "standard output"
    print(f"t5x: {name}: {e.strerror or _one_line(e)}", file=sys.stderr)
    return 2
  return 0


def _discard_output() -> None:
  """Keeps Python from writing what is left of standard output at exit."""
  with contextlib.suppress(OSError, ValueError):
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
  sys.exit(main())
