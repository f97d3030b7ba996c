"""The command line: `t5x train --gin_file=xprompt_demo.gin` and its kin.

The only module that knows gin. It turns flags and gin files into an
`ExperimentConfig`, calls one function for each command, and turns whatever
the user can mend into one line and exit status 2. Imports that load JAX stand
inside functions, so that `--help` answers at once.
"""

import argparse
from collections.abc import Sequence
import contextlib
import importlib.util  # gin uses importlib.util without importing it. # noqa: F401
import logging
import os
import pathlib
import sys
from typing import Any, NoReturn

_GIN_FOLDER = pathlib.Path(__file__).parent / "gin"
_COMMANDS = {
    "train": "tune, score, prune, rewind and search, then print the results",
    "eval": "evaluate a prompt on a split",
    "infer": "predict: JSON lines with `inputs` in, predictions out",
    "score": "write the importance scores of a prompt",
    "cache": "tokenise a task's splits, for machines without TensorFlow",
}


class _Parser(argparse.ArgumentParser):
  """Prints a mistake in one line."""

  def error(self, message: str) -> NoReturn:
    self.exit(2, f"t5x: {message}; see `t5x --help`\n")


def _build_parser() -> _Parser:
  parser = _Parser(
      prog="t5x",
      description="Prompt tuning and XPrompt for T5 models, in JAX.",
      allow_abbrev=False,
  )
  commands = parser.add_subparsers(dest="command", required=True)
  for name, help_text in _COMMANDS.items():
    command = commands.add_parser(
        name, help=help_text, description=help_text, allow_abbrev=False
    )
    command.add_argument(
        "--gin_file",
        action="append",
        required=True,
        help="gin file; looked for in the current folder, in"
        " --gin_search_paths, then in the packaged gin/ (repeatable)",
    )
    command.add_argument(
        "--gin_search_paths",
        default="",
        help="folders to look for gin files in, with commas between",
    )
    command.add_argument(
        "--workdir", help="where results go (default: runs/<gin file>)"
    )
    command.add_argument(
        "--gin.NAME",
        dest="_bindings",
        metavar="VALUE",
        help="set a macro or a parameter, such as --gin.PROMPT_LENGTH=10",
    )
    if name == "infer":
      command.add_argument(
          "--input", default="-", help="JSON lines; - is standard input"
      )
      command.add_argument(
          "--output", default="-", help="predictions; - is standard output"
      )
    if name == "eval":
      command.add_argument(
          "--split",
          choices=("train", "validation", "test"),
          help="default: test if the task has one, else validation",
      )
  return parser


def _parse_arguments(
    argv: Sequence[str],
) -> tuple[argparse.Namespace, list[str]]:
  """Splits `--gin.NAME=VALUE` from the flags: they become gin bindings."""
  bindings, rest = [], []
  for argument in argv:
    if argument.startswith("--gin.") and "=" in argument:
      bindings.append(argument.removeprefix("--gin."))
    else:
      rest.append(argument)
  return _build_parser().parse_args(rest), bindings


def _one_line(error: BaseException) -> str:
  # gin adds the call in which a config refused its fields.
  message = str(error).partition("\n  In call to configurable")[0]
  return " ".join(message.split())


def _check_macros(bindings: Sequence[str]) -> None:
  """Refuses a macro on the command line that no gin file knows.

  gin would take a misspelt macro for a new one and go on.
  """
  import gin

  from xprompt_jax.types import UserError

  for binding in bindings:
    name = binding.partition("=")[0].strip()
    if "." in name or "/" in name:
      continue
    try:
      gin.query_parameter(f"{name}/gin.macro.value")
    except ValueError as e:
      raise UserError(
          f"--gin.{name}: found no such macro in the gin files, expected one"
          " they define, or MODULE.CLASS.PARAMETER"
      ) from e


def parse_gin(
    gin_files: Sequence[str],
    bindings: Sequence[str],
    search_paths: Sequence[str] = (),
) -> Any:
  """Parses gin files and bindings, finalizes, and builds the root config.

  Args:
    gin_files: names or paths.
    bindings: `NAME=VALUE` strings, later than the files.
    search_paths: folders tried before the packaged ones.

  Returns:
    An `ExperimentConfig`.

  Raises:
    UserError: whatever gin cannot find, parse or bind.
  """
  import gin

  from xprompt_jax import experiment
  from xprompt_jax.types import UserError

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
    names = f"--gin_file={', '.join(gin_files)}"
    gin.finalize()
    return gin.get_configurable(experiment.ExperimentConfig)()
  except UserError:
    raise
  except (
      AttributeError,
      ImportError,
      KeyError,
      NameError,
      OSError,
      RuntimeError,
      SyntaxError,
      TypeError,
      ValueError,
  ) as e:
    raise UserError(f"{names}: {_one_line(e)}") from e
  finally:
    logging.disable(logging.NOTSET)


def _prompt_file() -> str | None:
  import gin

  try:
    return gin.query_parameter("PROMPT_FILE/gin.macro.value")
  except ValueError:
    return None


def _run(arguments: argparse.Namespace, bindings: Sequence[str]) -> None:
  # Before anything imports TensorFlow.
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
  from xprompt_jax import commands

  search_paths = [p for p in arguments.gin_search_paths.split(",") if p]
  config = parse_gin(arguments.gin_file, bindings, search_paths)
  workdir = pathlib.Path(
      arguments.workdir or f"runs/{pathlib.Path(arguments.gin_file[-1]).stem}"
  )
  if arguments.command == "train":
    import gin

    commands.train(config, workdir, gin.operative_config_str())
  elif arguments.command == "eval":
    commands.evaluate(config, workdir, arguments.split, _prompt_file())
  elif arguments.command == "infer":
    commands.infer(
        config, workdir, _prompt_file(), arguments.input, arguments.output
    )
  elif arguments.command == "score":
    commands.score(config, workdir, _prompt_file())
  else:
    commands.cache(config, workdir)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one command.

  Args:
    argv: arguments; None means those of the process.

  Returns:
    0, or 2 after a mistake that the user can mend; bugs raise.
  """
  arguments, bindings = _parse_arguments(sys.argv[1:] if argv is None else argv)
  from xprompt_jax.types import UserError

  try:
    _run(arguments, bindings)
  except UserError as e:
    print(f"t5x: {_one_line(e)}", file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print("t5x: stopped; the same command goes on from here", file=sys.stderr)
    return 130
  except BrokenPipeError:
    # The reader of a pipe went away.
    with contextlib.suppress(OSError):
      os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
  return 0


if __name__ == "__main__":
  sys.exit(main())
