"""Which function each command calls, and with what.

`main.py` has turned flags and gin files into a `Call` before this module is
imported, which loads JAX; gin itself is not known here.
"""

import argparse
from collections.abc import Callable
import dataclasses
import pathlib

from xprompt_jax import commands, conversion, inference
from xprompt_jax.experiment import ExperimentConfig
from xprompt_jax.export import exporting
from xprompt_jax.t5.config import T5Config


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
  commands.evaluate(
      call.config, call.workdir, call.arguments.split, call.prompt_file
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
