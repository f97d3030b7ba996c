"""Which function each command calls, and with what.

`main.py` has turned flags and gin files into a `Call` before this module is
imported, which loads JAX; gin itself is not known here.
"""

import argparse
import collections
from collections.abc import Callable, Mapping
import dataclasses
import pathlib
import sys

from xprompt_jax import (
    commands,
    conversion,
    eval_command,
    inference,
    similarity,
    suite,
)
from xprompt_jax.experiment import ExperimentConfig, SharedWeights
from xprompt_jax.export import exporting
from xprompt_jax.t5.config import T5Config
from xprompt_jax.t5x_engine import requirements
from xprompt_jax.types import UserError, mendable, require


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Shared:
  """What the tasks of a suite have in common.

  Attributes:
    weights: the frozen ones.
    left_out: how many tasks of a suite have other answers than one of --task;
      None where there is no suite, and such a task is refused.
  """

  weights: SharedWeights
  left_out: collections.Counter[str] | None = None


def _train(call: Call, shared: _Shared) -> None:
  commands.train(call.config, call.workdir, call.gin_config, shared.weights)


def _check_submission(flags: argparse.Namespace) -> None:
  """Refuses flags that say something else than --submission."""
  if flags.command != "eval" or flags.submission is None:
    return
  if flags.split or flags.task:
    other = (
        f"--task={flags.task[0]}" if flags.task else f"--split={flags.split}"
    )
    raise UserError(
        f"--submission={flags.submission}: found {other}, expected neither"
        " --task nor --split: a submission is of the task's own test split"
    )


def _eval(call: Call, shared: _Shared) -> None:
  flags = call.arguments
  common = {
      "prompt_file": call.prompt_file,
      "row": flags.row,
      "weights": shared.weights,
  }
  if flags.submission is not None:
    eval_command.submit(call.config, call.workdir, flags.submission, **common)
    return
  eval_command.evaluate(
      call.config,
      call.workdir,
      split=flags.split,
      tasks=flags.task,
      left_out=shared.left_out,
      **common,
  )


def _infer(call: Call, shared: _Shared) -> None:
  del shared
  inference.infer(
      call.config,
      call.workdir,
      prompt_file=call.prompt_file,
      row=call.arguments.row,
      named_prompts=call.arguments.prompt,
      source=call.arguments.input,
      target=call.arguments.output,
  )


def _score(call: Call, shared: _Shared) -> None:
  commands.score(call.config, call.workdir, call.prompt_file, shared.weights)


def _export(call: Call, shared: _Shared) -> None:
  del shared
  exporting.export(
      call.config,
      call.workdir,
      prompt_file=call.prompt_file,
      row=call.arguments.row,
      output_format=call.arguments.format,
      output=pathlib.Path(call.arguments.output),
      remove_pruned_tokens=call.arguments.remove_pruned_tokens,
  )


def _cache(call: Call, shared: _Shared) -> None:
  del shared
  commands.cache(call.config, call.workdir)


_COMMANDS: dict[str, Callable[[Call, _Shared], None]] = {
    "train": _train,
    "eval": _eval,
    "infer": _infer,
    "score": _score,
    "export": _export,
    "cache": _cache,
}


def check_engine(arguments: argparse.Namespace) -> None:
  """Refuses --engine=t5x without T5X or on several hosts, before all else.

  T5X is imported here, as gin takes no more of its functions once files are read.
  """
  if arguments.command == "train" and arguments.engine == requirements.T5X:
    requirements.check_importable()
    requirements.check_one_process()


def with_engine(
    config: ExperimentConfig, arguments: argparse.Namespace
) -> ExperimentConfig:
  """The config of a command, with the engine that --engine names.

  Raises:
    UserError: gin files name one, or the engine cannot train what they say.
  """
  if arguments.command != "train":
    return config
  require(
      config.engine == requirements.NATIVE,
      "ExperimentConfig.engine",
      config.engine,
      "--engine on the command line in its place",
  )
  return dataclasses.replace(config, engine=arguments.engine)


def run(call: Call) -> None:
  """Runs the command of an experiment that the flags name."""
  _check_submission(call.arguments)
  _COMMANDS[call.arguments.command](call, _Shared(weights=SharedWeights()))


# Commands that make sense of every task of a suite, one after another.
_OF_EACH_TASK = ("eval", "score", "cache")


def run_suite(
    calls: Mapping[str, Call], workdir: pathlib.Path, *, is_sweep: bool = False
) -> None:
  """Runs the command of a recipe that names several in TASK_FILES or RUNS.

  Args:
    calls: what to run, by folder: the stem of the task's gin file, the run's
      name, or TASK/RUN.
    workdir: of the suite; each of them has a folder in it.
    is_sweep: whether RUNS names them.

  Raises:
    UserError: tasks that failed, after the others ran; or the command is about
      one prompt.
  """
  arguments = next(iter(calls.values())).arguments
  if arguments.command == "train":
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
        is_sweep=is_sweep,
        is_partial=bool(arguments.run),
    )
  elif arguments.command in _OF_EACH_TASK:
    _check_submission(arguments)
    _run_each(calls, _COMMANDS[arguments.command])
  elif is_sweep:
    _run_one_of_sweep(calls)
  else:
    name = next(iter(calls))
    raise UserError(
        f"TASK_FILES: found {len(calls)} tasks, expected one for"
        f" {arguments.command}: add --gin_file=tasks/{name}.gin"
        f' --gin.TASK_FILES="()" --workdir={workdir / name}'
    )


def _run_one_of_sweep(calls: Mapping[str, Call]) -> None:
  """Runs a command that is about one prompt; --run says whose.

  Raises:
    UserError: there are several.
  """
  if len(calls) == 1:
    run(*calls.values())
    return
  (name, call), *_ = calls.items()
  task, _, last = name.rpartition("/")
  more = f" --gin.TASK_FILES=\"('tasks/{task}.gin',)\"" if task else ""
  raise UserError(
      f"RUNS: found {len(calls)} runs, expected one for"
      f" {call.arguments.command}: add --run={last}{more}"
  )


def _run_each(
    calls: Mapping[str, Call], command: Callable[[Call, _Shared], None]
) -> None:
  """Runs a command of every task; the frozen weights are loaded once.

  Args:
    calls: what to run for each task, by name.
    command: one of `_COMMANDS`.

  Raises:
    UserError: tasks that failed, after the others ran.
  """
  left_out: collections.Counter[str] = collections.Counter()
  shared = _Shared(weights=SharedWeights(), left_out=left_out)
  # Tasks that fail for one reason are named together.
  failed: dict[str, list[str]] = {}
  for name, call in calls.items():
    try:
      command(call, shared)
    except BrokenPipeError:
      raise
    except Exception as e:
      reason = mendable(e)
      if reason is None:
        raise
      failed.setdefault(reason, []).append(name)
    sys.stdout.flush()
  if failed:
    count = sum(map(len, failed.values()))
    reasons = [f"{', '.join(names)}: {why}" for why, names in failed.items()]
    raise UserError(
        f"{count} of {len(calls)} tasks failed: {'; '.join(reasons)}"
    )
  for task, count in left_out.items():
    if count == len(calls):
      raise UserError(
          f"--task={task}: found other answers than those of each of the"
          f" {count} tasks of TASK_FILES, expected those of one"
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
