"""The values that a prompt and its masks start from inside T5X.

T5X asks for them when it initialises a parameter that the checkpoint it
restores does not have. They are the ones of `prompts.initial_prompts`, so both
engines start alike from one seed.
"""

from collections.abc import Callable, Iterator
import contextlib
import contextvars
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from xprompt_jax import artifacts, prompt_formats, prompts, vocabularies
from xprompt_jax import masks as masks_lib
from xprompt_jax.prompt_formats import native, places, reading
from xprompt_jax.prompts import PromptConfig
from xprompt_jax.types import PromptMasks, UserError, require
from xprompt_jax.weights import checkpoints

EMBEDDING = "token_embedder/embedding"
_PLACE = "MASKS_FILE="
# These do not look at the model's embedding.
_WITHOUT_EMBEDDING = ("random_uniform", "from_file")
_SHAPES_ALONE = contextvars.ContextVar("shapes_alone", default=False)


@contextlib.contextmanager
def shapes_alone() -> Iterator[None]:
  """Nothing that is initialised inside counts, so no file is read for it."""
  token = _SHAPES_ALONE.set(True)
  try:
    yield
  finally:
    _SHAPES_ALONE.reset(token)


def initializer(
    value: Callable[[], Any], *, is_there: bool
) -> Callable[..., jax.Array]:
  """An initializer as T5X calls them: key, shape, dtype.

  Args:
    value: gives the values; may read files.
    is_there: the parameter has a value, and Flax asks for shapes alone.

  Returns:
    Gives zeros where values do not count.
  """

  def initial(
      key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32
  ) -> jax.Array:
    del key
    if is_there or _SHAPES_ALONE.get():
      return jnp.zeros(shape, dtype)
    return jnp.asarray(value(), dtype)

  return initial


@dataclasses.dataclass(frozen=True, kw_only=True)
class StartingPrompt:
  """Where one prompt and its masks start; hashable, so modules can hold it.

  Attributes:
    config: length, pieces, initialiser; whether pruned tokens are hidden.
    seed: of the initialisers that sample.
    checkpoint: of the frozen weights, whose embedding `sampled_vocab`, `text`,
      `class_labels` and `first_rows` look into; what `t5x train` takes as
      CHECKPOINT, T5X's native format among them.
    vocabulary: of the model, for the first three: a SentencePiece file, "bytes",
      or seqio's vocabulary, of which that is taken.
    extra_ids: sentinels the vocabulary file does not have; seqio's vocabulary
      says it itself.
    masks_file: a stage's `masks.safetensors`, or a prompt in any format, whose
      masks are taken; `PATH`, or `PATH#ROW` for one of several. None means ones.
  """

  config: PromptConfig
  seed: int = 0
  checkpoint: str | None = None
  vocabulary: Any = None
  extra_ids: int = 100
  masks_file: str | None = None

  def __post_init__(self):
    found = self.vocabulary
    if found is None or isinstance(found, str):
      return
    # seqio's: hashed by its file, and read without TensorFlow.
    path = getattr(found, "sentencepiece_model_file", None)
    if "ByteVocabulary" in (kind.__name__ for kind in type(found).__mro__):
      path = vocabularies.BYTES
    require(
        path is not None,
        "VOCABULARY",
        type(found).__name__,
        "SentencePieceVocabulary or ByteVocabulary",
    )
    object.__setattr__(self, "vocabulary", path)
    object.__setattr__(self, "extra_ids", found.extra_ids)

  def table(self, embed_dim: int) -> tuple[np.ndarray, PromptMasks]:
    """The masked starting values [P, H] and the masks [P] and [P, K].

    Raises:
      UserError: a file or checkpoint that cannot be read or does not fit.
    """
    return _table(self, embed_dim)


def for_inference(
    config: PromptConfig,
    prompt_file: str | None = None,
    masks_file: str | None = None,
) -> StartingPrompt:
  """What stands in for the prompt until a checkpoint is restored.

  Args:
    config: length, pieces, and whether pruned tokens are hidden.
    prompt_file: a prompt, `PATH` or `PATH#ROW`, taken with its masks where
      `restoring.prompt_from` passes over the checkpoint's. None means that the
      checkpoint has one, so anything will do.
    masks_file: instead of the masks of `prompt_file`; as `StartingPrompt` has it.

  Raises:
    UserError: masks without a prompt.
  """
  if prompt_file is None:
    require(
        masks_file is None,
        "MASKS_FILE",
        masks_file,
        "none without PROMPT_FILE, as a checkpoint's prompt has its own masks",
    )
    config = dataclasses.replace(config, init="random_uniform")
    return StartingPrompt(config=config)
  config = dataclasses.replace(config, init="from_file", init_file=prompt_file)
  return StartingPrompt(config=config, masks_file=masks_file or prompt_file)


@functools.lru_cache(maxsize=4)
def _table(
    start: StartingPrompt, embed_dim: int
) -> tuple[np.ndarray, PromptMasks]:
  config = start.config
  config.check_embed_dim(embed_dim)
  masks = _masks(start)
  embedding, vocabulary = _embedding(start, embed_dim)
  # T5X asks while it traces its initialiser, and several times.
  with jax.ensure_compile_time_eval():
    prompt = prompts.initial_prompts(
        config, [start.seed], embedding, vocabulary
    )[0]
    prompt = np.asarray(masks_lib.apply_masks(prompt, masks), np.float32)
  return prompt, masks


def _embedding(
    start: StartingPrompt, embed_dim: int
) -> tuple[np.ndarray, vocabularies.Vocabulary]:
  """The table [V, H] and the vocabulary, where the initialiser needs them."""
  init = start.config.init
  if init in _WITHOUT_EMBEDDING:
    nothing = np.zeros((0, embed_dim), np.float32)
    return nothing, vocabularies.load_vocabulary("bytes", 0)
  for name in ("checkpoint", "vocabulary"):
    found = getattr(start, name)
    require(
        found is not None,
        f"StartingPrompt.{name}",
        found,
        f"a path, which PromptConfig.init={init!r} looks into",
    )
  path = str(start.checkpoint)
  network = checkpoints.config_of(path)
  require(
      network.emb_dim == embed_dim,
      f"{path}: emb_dim",
      network.emb_dim,
      f"{embed_dim}, as the network has it",
  )
  leaf = checkpoints.open_checkpoint(path, network)[EMBEDDING]
  vocabulary = vocabularies.load_vocabulary(
      str(start.vocabulary), start.extra_ids
  )
  return np.asarray(leaf.whole(), np.float32), vocabulary


def _stored_masks(path: str, num_pieces: int) -> PromptMasks:
  """The masks [R, P] and [R, P, K] of a file."""
  file = reading.file_of(path)
  if file.name != artifacts.MASKS:
    return prompt_formats.read_table(
        path, embed_dim=None, num_pieces=num_pieces
    )[1]
  arrays = native.read(file)
  missing = {"token_mask", "piece_mask"} - arrays.keys()
  if missing:
    raise UserError(
        f"{file}: found no {' and no '.join(sorted(missing))}, expected the"
        " masks of a pruning stage"
    )
  token_mask = np.asarray(arrays["token_mask"], np.float32)
  piece_mask = np.asarray(arrays["piece_mask"], np.float32)
  require(
      token_mask.ndim == 2 and piece_mask.shape[:2] == token_mask.shape,
      f"{file}: shapes of the masks",
      (token_mask.shape, piece_mask.shape),
      "[R, P] and [R, P, K]",
  )
  return PromptMasks(
      token_mask=token_mask, piece_mask=piece_mask * token_mask[..., None]
  )


def _masks(start: StartingPrompt) -> PromptMasks:
  """The masks of one prompt, [P] and [P, K]; ones without a file."""
  config = start.config
  if start.masks_file is None:
    ones = np.ones((config.length, config.num_pieces), np.float32)
    return PromptMasks(token_mask=ones[:, 0], piece_mask=ones)
  path, row = places.split_row(start.masks_file, prefix=_PLACE)
  masks = _stored_masks(path, config.num_pieces)
  num_rows, *shape = masks.piece_mask.shape
  if row is None:
    require(num_rows == 1, path, f"{num_rows} masks", f"1, or {path}#ROW")
    row = 0
  places.check_row(row, path, num_rows, f"{_PLACE}{start.masks_file}")
  require(
      shape == [config.length, config.num_pieces],
      f"{path}: masks",
      tuple(shape),
      f"[P, K] = {(config.length, config.num_pieces)}, PROMPT_LENGTH and"
      " NUM_PIECES",
  )
  require(
      masks.present is None or bool(np.asarray(masks.present)[row].all()),
      f"{path}: row {row}",
      "a prompt shorter than its table's",
      "an export of it, which has its own length",
  )
  return PromptMasks(
      token_mask=np.asarray(masks.token_mask[row]),
      piece_mask=np.asarray(masks.piece_mask[row]),
  )
