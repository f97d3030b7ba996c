"""What `t5x train --engine=t5x` asks for, found out before anything is written.

Nothing here imports T5X but the function that looks for it.
"""

import importlib
import warnings

import jax

from xprompt_jax import tokenization
from xprompt_jax.flags import ENGINES
from xprompt_jax.methods.config import PROMPT_TUNING
from xprompt_jax.optimizer import OptimizerConfig
from xprompt_jax.t5.config import T5Config
from xprompt_jax.types import UserError, require

NATIVE, T5X = ENGINES
_HOW_TO_INSTALL = (
    "clones of https://github.com/google-research/t5x (tested: commit cc342d4),"
    " https://github.com/google/airio and"
    " https://github.com/google-research/jestimator on PYTHONPATH, and 'pip"
    " install cached_property fiddle grain tensorboard': docs/t5x.md, Installing"
    " T5X"
)
_MODULES = (
    "t5x.trainer",
    "t5x.checkpoints",
    "t5x.examples.t5.network",
    "t5x.examples.scalable_t5.network",
)
# T5X's networks have no field for these.
_BUCKETS = {"relpos_num_buckets": 32, "relpos_max_distance": 128}


def check_importable() -> None:
  """Refuses to go on where google-research/t5x cannot be imported.

  Raises:
    UserError: it, or something that it needs, is not there.
  """
  try:
    with warnings.catch_warnings(), tokenization.quiet_stderr():
      warnings.simplefilter("ignore")
      for name in _MODULES:
        importlib.import_module(name)
  except Exception as e:  # Another version's modules may raise anything.
    reason = str(e).strip().partition("\n")[0]
    raise UserError(
        f"--engine=t5x: T5X cannot be imported ({type(e).__name__}: {reason}),"
        f" expected {_HOW_TO_INSTALL}"
    ) from e
  # T5X has imported TensorFlow, which would take the memory of every GPU.
  tokenization.import_seqio("--engine=t5x")


def check_one_process() -> None:
  """Refuses several hosts, which would all write the same files.

  Raises:
    UserError: JAX has joined other processes.
  """
  count = jax.process_count()
  require(
      count == 1,
      "processes of --engine=t5x",
      count,
      "1; several hosts train with 'python -m t5x.train' (docs/t5x.md)",
  )


def check_config(
    engine: str, method: str, model: T5Config, optimizer: OptimizerConfig
) -> None:
  """Refuses a config that T5X cannot train as it says.

  Args:
    engine: of `ENGINES`.
    method: METHOD.
    model: the frozen network.
    optimizer: the prompt's.

  Raises:
    UserError: names the field.
  """
  require(engine in ENGINES, "--engine", engine, f"one of {', '.join(ENGINES)}")
  if engine == NATIVE:
    return
  why = "with --engine=t5x"
  require(method == PROMPT_TUNING, "METHOD", method, f"{PROMPT_TUNING!r} {why}")
  require(
      not optimizer.factored,
      "OptimizerConfig.factored",
      optimizer.factored,
      f"False {why}",
  )
  for name, expected in _BUCKETS.items():
    found = getattr(model, name)
    require(found == expected, f"T5Config.{name}", found, f"{expected} {why}")
  # `examples/t5` has no such field, and unscanned `scalable_t5` loses the
  # decoder's attention masks where layers are computed again.
  require(not model.remat, "T5Config.remat", model.remat, f"False {why}")
  require(
      not (model.relpos_per_layer and model.float32_attention_logits),
      "T5Config.float32_attention_logits",
      model.float32_attention_logits,
      f"False {why} and a position bias in every layer",
  )
