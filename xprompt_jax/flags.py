"""The flags of every command, and how a command line is split.

`main.py` runs what is parsed here. Nothing but the standard library is
imported, so that `--help` answers at once.
"""

import argparse
from collections.abc import Callable, Sequence
import dataclasses
import difflib
from typing import NoReturn

PROMPT_FORMATS = ("peft", "npy", "safetensors", "openprompt", "compact")
_CHECKPOINT_FORMATS = ("t5x", "huggingface")
ENGINES = ("native", "t5x")


class _Parser(argparse.ArgumentParser):
  """Prints a mistake in one line."""

  def error(self, message: str) -> NoReturn:
    self.exit(2, f"t5x: {message}; see `t5x --help`\n")


def _add_workdir(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
      "--workdir", help="where results go (default: runs/<gin file>)"
  )


def _add_train(parser: argparse.ArgumentParser) -> None:
  _add_workdir(parser)
  parser.add_argument(
      "--engine",
      choices=ENGINES,
      default=ENGINES[0],
      help="what trains prompts: native, this program; t5x, the trainer of"
      " google-research/t5x, which has to be on PYTHONPATH, see docs/t5x.md"
      " (default: native)",
  )


def _add_eval(parser: argparse.ArgumentParser) -> None:
  _add_workdir(parser)
  parser.add_argument(
      "--split",
      choices=("train", "validation", "test"),
      help="default: test if the task has one, else validation",
  )
  parser.add_argument(
      "--row",
      type=int,
      help="which prompt of the run or file (default: all; for --submission 0)",
  )
  parser.add_argument(
      "--task",
      action="append",
      default=[],
      metavar="NAME",
      help="evaluate on another task of the same module with the same answers,"
      " too; NAME/SPLIT takes another split than its namesake (repeatable)",
  )
  parser.add_argument(
      "--submission",
      metavar="DIR",
      help="predict the task's official test split, which has no labels, and"
      " write the leaderboard's file into DIR",
  )


def _add_infer(parser: argparse.ArgumentParser) -> None:
  _add_workdir(parser)
  parser.add_argument(
      "--row",
      type=int,
      help="which prompt of the run or file (default: 0; a run has one for"
      " each seed, and `eval` prints them all)",
  )
  parser.add_argument(
      "--prompt",
      action="append",
      default=[],
      metavar="NAME=PATH",
      help="a prompt for the lines that have NAME in their field `prompt`;"
      " NAME=PATH#ROW takes another row than the first (repeatable)",
  )
  parser.add_argument(
      "--input", default="-", help="JSON lines; - is standard input"
  )
  parser.add_argument(
      "--output", default="-", help="predictions; - is standard output"
  )


def _add_export(parser: argparse.ArgumentParser) -> None:
  _add_workdir(parser)
  parser.add_argument(
      "--format",
      choices=PROMPT_FORMATS,
      required=True,
      help="what the prompt is written as",
  )
  parser.add_argument(
      "--output", required=True, help="folder for the prompt and its card"
  )
  parser.add_argument(
      "--row",
      type=int,
      help="which prompt of the run or file (a run has one for each seed)",
  )
  parser.add_argument(
      "--remove_pruned_tokens",
      action="store_true",
      help="leave pruned tokens out, and print what that changes",
  )


def _add_import(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
      "--checkpoint",
      required=True,
      help="what to convert: a folder, a file or a hub id",
  )
  parser.add_argument(
      "--format",
      choices=_CHECKPOINT_FORMATS,
      required=True,
      help="what the checkpoint is written as",
  )
  parser.add_argument(
      "--output", required=True, help="folder for the checkpoint"
  )


def _add_similarity(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
      "--prompt",
      action="append",
      default=[],
      metavar="NAME=PATH",
      help="a prompt to compare; NAME=PATH#ROW takes another row than the first"
      " (two or more)",
  )
  parser.add_argument(
      "--output", required=True, help="folder for the matrices and a picture"
  )


def _add_report(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
      "workdirs",
      nargs="+",
      metavar="WORKDIR",
      help="folder of a run or of a suite (repeatable)",
  )
  parser.add_argument(
      "--output",
      default="report",
      metavar="DIR",
      help="folder for report.html, report.md, figures/ and tables/ (default:"
      " report)",
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
  """One command: its line of help and its flags.

  Attributes:
    help: what it does.
    add_flags: declares the flags that not every command has.
    needs_gin_file: whether it makes no sense without --gin_file.
  """

  help: str
  add_flags: Callable[[argparse.ArgumentParser], None] = _add_workdir
  needs_gin_file: bool = True


COMMANDS = {
    "train": Command(
        help="tune, score, prune, rewind and search, then print the results",
        add_flags=_add_train,
    ),
    "eval": Command(help="evaluate a prompt on a split", add_flags=_add_eval),
    "infer": Command(
        help="predict: JSON lines with `inputs` in, predictions out",
        add_flags=_add_infer,
    ),
    "score": Command(help="write the importance scores of a prompt"),
    "export": Command(
        help="write a prompt as other programs read it", add_flags=_add_export
    ),
    "import": Command(
        help="convert a T5 checkpoint between Hugging Face and T5X",
        add_flags=_add_import,
        needs_gin_file=False,
    ),
    "similarity": Command(
        help="compare the prompts of different tasks",
        add_flags=_add_similarity,
        needs_gin_file=False,
    ),
    "report": Command(
        help="a page of tables and figures from the files of finished runs",
        add_flags=_add_report,
        needs_gin_file=False,
    ),
    "cache": Command(
        help="tokenise a task's splits, for machines without TensorFlow"
    ),
}


def _build_parser() -> _Parser:
  parser = _Parser(
      prog="t5x",
      description="Prompt tuning and XPrompt for T5 models, in JAX.",
      allow_abbrev=False,
  )
  commands = parser.add_subparsers(dest="command", metavar="COMMAND")
  for name, command in COMMANDS.items():
    added = commands.add_parser(
        name, help=command.help, description=command.help, allow_abbrev=False
    )
    added.add_argument(
        "--gin_file",
        action="append",
        default=[],
        help="gin file; looked for in the current folder, in"
        " --gin_search_paths, then in the packaged gin/ (repeatable)",
    )
    added.add_argument(
        "--gin_search_paths",
        default="",
        help="folders to look for gin files in, with commas between",
    )
    if command.needs_gin_file:
      added.add_argument(
          "--run",
          action="append",
          default=[],
          metavar="NAME",
          help="only this one of the runs that RUNS names (repeatable)",
      )
    added.add_argument(
        "--gin.NAME",
        dest="_bindings",
        metavar="VALUE",
        help="set a macro or a parameter, such as --gin.PROMPT_LENGTH=10",
    )
    command.add_flags(added)
  return parser


def parse_arguments(
    argv: Sequence[str],
) -> tuple[argparse.Namespace, list[str]]:
  """Splits `--gin.NAME=VALUE` from the flags: they become gin bindings.

  Args:
    argv: the command line without the program's name.

  Returns:
    The flags, `command` among them, and the bindings as `NAME=VALUE`.

  Raises:
    SystemExit: with status 2 after one line about a mistake, with 0 after
      `--help`.
  """
  parser = _build_parser()
  bindings, rest = [], []
  for argument in argv:
    if not argument.startswith("--gin."):
      rest.append(argument)
    elif "=" in argument:
      bindings.append(argument.removeprefix("--gin."))
    else:
      parser.error(f"{argument}: found no value, expected {argument}=VALUE")
  arguments, unknown = parser.parse_known_args(rest)
  if arguments.command is None and not unknown:
    parser.error(f"found no command, expected one of {', '.join(COMMANDS)}")
  if unknown:
    near = difflib.get_close_matches(
        unknown[0].partition("=")[0],
        [f"--{name}" for name in vars(arguments)],
    )
    hint = f", expected one such as {near[0]}" if near else ""
    parser.error(f"{unknown[0]}: found no such flag{hint}")
  if not arguments.gin_file:
    if COMMANDS[arguments.command].needs_gin_file:
      parser.error("--gin_file: found none, expected a gin file")
    if bindings:
      parser.error(f"--gin.{bindings[0]}: found no gin file, expected one")
  elif arguments.command == "import":
    # What a recipe takes from CHECKPOINT is that of --checkpoint. In gin's long
    # form, because not every model's file has the macro.
    bindings.append(f"CHECKPOINT/gin.macro.value={arguments.checkpoint!r}")
  return arguments, bindings
