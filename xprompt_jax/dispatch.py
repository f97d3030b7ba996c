"""Which function each command calls, and with what.

`main.py` has turned flags and gin files into a `Call` before this module is
imported, which loads JAX; gin itself is not known here.
"""

import argparse
from collections.abc import Callable, Mapping
import dataclasses
import pathlib

from xprompt_jax import (
    commands,
    conversion,
    eval_command,
    inference,
    similarity,
    suite,
)
from xprompt_jax.experiment import ExperimentConfig
from xprompt_jax.export import exporting
from xprompt_jax.t5.config import T5Config
from xprompt_jax.types import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
  """One command of an experiment.

  Attributes:
    arguments: the command's flags.
    config: what the gin files say.
    workdir: the run's folder.
    prompt_file: PROMPT_FILE of the gin files.
    gin_config: the operative config, as text.
  """

  arguments: argparse.Namespace
  config: ExperimentConfig
  workdir: pathlib.Path
  prompt_file: str | None
  gin_config: str


def _train(call: Call) -> None:
  commands.train(call.config, call.workdir, call.gin_config)


def _eval(call: Call) -> None:
  flags = call.arguments
  if flags.submission is None:
    eval_command.evaluate(
        call.config,
        call.workdir,
        split=flags.split,
        prompt_file=call.prompt_file,
        row=flags.row,
        tasks=flags.task,
    )
    return
  if flags.split or flags.task:
    other = (
        f"--task={flags.task[0]}" if flags.task else f"--split={flags.split}"
    )
    raise UserError(
        f"--submission={flags.submission}: found {other}, expected neither"
        " --task nor --split: a submission is of the task's own test split"
    )
  eval_command.submit(
      call.config,
      call.workdir,
      flags.submission,
      prompt_file=call.prompt_file,
      row=flags.row,
  )


def _infer(call: Call) -> None:
  inference.infer(
      call.config,
      call.workdir,
      prompt_file=call.prompt_file,
      row=call.arguments.row,
      named_prompts=call.arguments.prompt,
      source=call.arguments.input,
      target=call.arguments.output,
  )


def _score(call: Call) -> None:
  commands.score(call.config, call.workdir, call.prompt_file)


def _export(call: Call) -> None:
  exporting.export(
      call.config,
      call.workdir,
      prompt_file=call.prompt_file,
      row=call.arguments.row,
      output_format=call.arguments.format,
      output=pathlib.Path(call.arguments.output),
      remove_pruned_tokens=call.arguments.remove_pruned_tokens,
  )


def _cache(call: Call) -> None:
  commands.cache(call.config, call.workdir)


_COMMANDS: dict[str, Callable[[Call], None]] = {
    "train": _train,
    "eval": _eval,
    "infer": _infer,
    "score": _score,
    "export": _export,
    "cache": _cache,
}


def run(call: Call) -> None:
  """Runs the command of an experiment that the flags name."""
  _COMMANDS[call.arguments.command](call)


# Commands that make sense of every task of a suite, one after another.
_OF_EACH_TASK = ("eval", "score", "cache")


def run_suite(calls: Mapping[str, Call], workdir: pathlib.Path) -> None:
  """Runs the command of a recipe that names several tasks in TASK_FILES.

  Args:
    calls: what to run for each task, by the stem of its gin file.
    workdir: of the suite; each task has a folder in it.

  Raises:
    UserError: a task failed, or the command is about one prompt.
  """
  command = next(iter(calls.values())).arguments.command
  if command == "train":
    suite.train(
        {
            name: suite.SuiteTask(
                config=call.config,
                workdir=call.workdir,
                gin_config=call.gin_config,
            )
            for name, call in calls.items()
        },
        workdir,
    )
  elif command in _OF_EACH_TASK:
    for call in calls.values():
      run(call)
  else:
    name = next(iter(calls))
    raise UserError(
        f"TASK_FILES: found {len(calls)} tasks, expected one for"
        f" {command}: add --gin_file=tasks/{name}.gin"
        f' --gin.TASK_FILES="()" --workdir={workdir / name}'
    )


def convert(
    arguments: argparse.Namespace,
    config: T5Config | None,
    vocabulary: str | None,
    extra_ids: int | None,
) -> None:
  """Runs `import`, which has a model and no experiment.

  Args:
    arguments: the command's flags.
    config: the T5's sizes; None leaves them to the checkpoint.
    vocabulary: VOCABULARY, if it is set.
    extra_ids: EXTRA_IDS, likewise.
  """
  conversion.convert(
      arguments.checkpoint,
      pathlib.Path(arguments.output),
      output_format=arguments.format,
      config=config,
      vocabulary=vocabulary,
      extra_ids=extra_ids,
  )


def compare(arguments: argparse.Namespace) -> None:
  """Runs `similarity`, which is about prompts and no model.

  Args:
    arguments: the command's flags.
  """
  if arguments.gin_file:
    raise UserError(
        f"--gin_file={arguments.gin_file[0]}: found a gin file, expected none:"
        " similarity needs no model"
    )
  similarity.compare(arguments.prompt, pathlib.Path(arguments.output))
