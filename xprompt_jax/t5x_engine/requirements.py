"""What `t5x train --engine=t5x` asks for, found out before anything is written.

Nothing here imports T5X but the function that looks for it.
"""

import importlib
import warnings

from xprompt_jax import tokenization
from xprompt_jax.methods.config import PROMPT_TUNING
from xprompt_jax.optimizer import OptimizerConfig
from xprompt_jax.t5.config import T5Config
from xprompt_jax.types import UserError, require

NATIVE = "native"
T5X = "t5x"
ENGINES = (NATIVE, T5X)
REPOSITORY = "https://github.com/google-research/t5x"
COMMIT = "cc342d4"
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
        f" expected a clone of {REPOSITORY} at commit {COMMIT} on PYTHONPATH"
        f" ('git clone {REPOSITORY} && git -C t5x checkout {COMMIT} && export"
        " PYTHONPATH=$PWD/t5x') and what it needs: docs/t5x.md, Installing T5X"
    ) from e
  # T5X has imported TensorFlow, which would take the memory of every GPU.
  tokenization.import_seqio("--engine=t5x")


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
  require(
      model.relpos_per_layer or not model.remat,
      "T5Config.remat",
      model.remat,
      f"False {why}, unless every layer has a position bias (umT5)",
  )
  require(
      not (model.relpos_per_layer and model.float32_attention_logits),
      "T5Config.float32_attention_logits",
      model.float32_attention_logits,
      f"False {why} and a position bias in every layer",
  )
