"""A prompt file beside each of T5X's checkpoints: kilobytes that may all stay.

T5X's checkpoint holds the frozen weights as well, so its gin files keep one.
"""

from collections.abc import Mapping
from typing import Any

from etils import epath
from flax import core
import jax
import numpy as np
from safetensors import numpy as safetensors_numpy
from t5x import checkpoints

from xprompt_jax import artifacts
from xprompt_jax.t5x_engine import moving

FOLDER = "prompts"


def _on_host(value: Any) -> np.ndarray:
  """A parameter, which every device has whole."""
  if isinstance(value, jax.Array) and not value.is_fully_addressable:
    return np.asarray(value.addressable_data(0))
  return np.asarray(value)


class PromptCheckpointer(checkpoints.Checkpointer):
  """T5X's own, which writes MODEL_DIR/prompts/checkpoint_STEP/ as well.

  What lies there is this program's prompt.safetensors: the prompt and its
  masks, [1, P, ...].
  """

  def save(self, train_state: Any, *args: Any, **kwargs: Any) -> None:
    """Saves a checkpoint, then the prompt alone; MODEL_DIR may be gs://."""
    super().save(train_state, *args, **kwargs)
    params = core.unfreeze(train_state.params)
    prompt = jax.tree.map(_on_host, params["encoder"]["prompt"])
    arrays = moving.from_parameters({"encoder": {"prompt": prompt}})
    if jax.process_index() == 0:
      step = int(_on_host(train_state.step))
      _write(epath.Path(self.checkpoints_dir) / FOLDER, step, arrays)


def _write(
    folder: epath.Path, step: int, arrays: Mapping[str, np.ndarray]
) -> None:
  path = folder / f"checkpoint_{step}" / artifacts.PROMPT
  path.parent.mkdir(parents=True, exist_ok=True)
  arrays = {name: np.asarray(a, order="C") for name, a in arrays.items()}
  content = safetensors_numpy.save(arrays, artifacts.digest_metadata(arrays))
  # Another name first: a run may be stopped here.
  part = path.parent / f".{path.name}.part"
  part.write_bytes(content)
  part.replace(path)
