"""The prompt table: its parameter, its masks, and where its values start.

One row is one ticket. The table is a Flax module so that its leaves have
names and axes like the network's; `model.py` puts its output in front of the
embedded inputs.
"""

from collections.abc import Sequence
import dataclasses

from flax import linen as nn
from jax import Array
import jax.numpy as jnp
from jaxtyping import Float, Int
import numpy as np

from xprompt_jax import artifacts, prompt_formats
from xprompt_jax import masks as masks_lib
from xprompt_jax.prompt_formats import places
from xprompt_jax.types import PromptMasks, require, require_int
from xprompt_jax.vocabularies import Vocabulary

INITIALISERS = (
    "sampled_vocab",
    "random_uniform",
    "class_labels",
    "text",
    "first_rows",
    "from_file",
)
# Lester et al. 2021, section 3.2: the most common pieces, the specials (pad,
# EOS, unknown) left out.
_SAMPLED_PIECES = 5000
_NUM_SPECIALS = 3
_UNIFORM_RANGE = 0.5
_PLACE = "PROMPT_INIT_FILE="


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptConfig:
  """The size of a prompt and where its values start.

  Attributes:
    length: P, prompt tokens.
    num_pieces: K, pieces per token; divides the embedding.
    init: one of `INITIALISERS`.
    init_text: the words for `text`, or the labels for `class_labels`.
    init_file: prompts of length P in any format of `prompt_formats`, for
      `from_file`, as `PATH`, or `PATH#ROW` for one of several; what their masks
      prune starts at zero. They are not taken over, so all may move again.
    pruned_tokens: `zero` keeps the position of a pruned token, which still
      takes attention (the paper's equation); `ignore` hides it as well.
  """

  length: int = 20
  num_pieces: int = 16
  init: str = "sampled_vocab"
  init_text: str | tuple[str, ...] = ()
  init_file: str | None = None
  pruned_tokens: str = "zero"

  def __post_init__(self):
    require_int("PromptConfig.length", self.length, 1)
    require_int("PromptConfig.num_pieces", self.num_pieces, 1)
    require(
        self.init in INITIALISERS,
        "PromptConfig.init",
        self.init,
        f"one of {', '.join(INITIALISERS)}",
    )
    require(
        self.pruned_tokens in ("zero", "ignore"),
        "PromptConfig.pruned_tokens",
        self.pruned_tokens,
        "zero or ignore",
    )
    text = self.init_text
    require(
        isinstance(text, str)
        or (
            isinstance(text, (list, tuple))
            and all(isinstance(word, str) for word in text)
        ),
        "PromptConfig.init_text",
        text,
        "a text, or a list of texts",
    )
    file = self.init_file
    require(
        file is None or (isinstance(file, str) and bool(file)),
        "PromptConfig.init_file",
        file,
        "a path, or None",
    )
    require(
        self.init not in ("class_labels", "text") or bool(self.init_text),
        "PromptConfig.init_text",
        self.init_text,
        f"words for init={self.init!r}",
    )
    require(
        self.init != "from_file" or self.init_file is not None,
        "PromptConfig.init_file",
        self.init_file,
        "a path for init='from_file'",
    )
    if self.init == "from_file" and self.init_file is not None:
      _split_place(self.init_file)
    if not isinstance(self.init_text, str):
      object.__setattr__(self, "init_text", tuple(self.init_text))

  def check_embed_dim(self, embed_dim: int) -> None:
    """Refuses pieces that do not divide the embedding H."""
    require(
        embed_dim % self.num_pieces == 0,
        "PromptConfig.num_pieces",
        self.num_pieces,
        f"a divisor of the model's emb_dim {embed_dim}",
    )


class PromptTable(nn.Module):
  """R prompts with their masks; an example names the row it uses.

  Variables: `params/prompt` [R, P, H], `masks/token_mask` [R, P] and
  `masks/piece_mask` [R, P, K].
  """

  num_rows: int
  prompt_length: int
  num_pieces: int
  embed_dim: int

  def setup(self):
    shape = (self.num_rows, self.prompt_length, self.embed_dim)

    def init(key: Array) -> Array:
      return nn.initializers.uniform(2 * _UNIFORM_RANGE)(key, shape) - (
          _UNIFORM_RANGE
      )

    self.prompt = self.param(
        "prompt",
        nn.with_logical_partitioning(init, ("rows", "prompt", "embed")),
    )
    masks = masks_lib.full_masks(*shape[:2], self.num_pieces)
    self.token_mask = self.variable(
        "masks", "token_mask", lambda: masks.token_mask
    )
    self.piece_mask = self.variable(
        "masks", "piece_mask", lambda: masks.piece_mask
    )

  def __call__(self, row_ids: Int[Array, "B"]) -> Float[Array, "B P H"]:
    """The masked prompt of each example's row: [B] -> [B, P, H]."""
    masks = PromptMasks(
        token_mask=self.token_mask.value, piece_mask=self.piece_mask.value
    )
    return masks_lib.apply_masks(self.prompt, masks)[row_ids]


def masked_prompts(
    prompt: Float[Array, "R P H"],
    masks: PromptMasks,
    row_ids: Int[Array, "B"],
) -> Float[Array, "B P H"]:
  """`PromptTable` applied to plain arrays.

  Args:
    prompt: [R, P, H].
    masks: [R, P] and [R, P, K].
    row_ids: [B], the row of each example.

  Returns:
    [B, P, H].
  """
  table = PromptTable(
      num_rows=prompt.shape[0],
      prompt_length=prompt.shape[1],
      num_pieces=masks.piece_mask.shape[2],
      embed_dim=prompt.shape[2],
  )
  variables = {
      "params": {"prompt": prompt},
      "masks": {
          "token_mask": masks.token_mask,
          "piece_mask": masks.piece_mask,
      },
  }
  return table.apply(variables, row_ids)


def _uniform(seed: int, count: int) -> np.ndarray:
  """Numbers in [0, 1) that no version of NumPy will change: [count].

  They come from the raw words of a Philox stream, as the data order does.
  """
  words = np.random.Philox(np.random.SeedSequence([seed])).random_raw(count)
  return (words >> np.uint64(11)) * 2.0**-53


def _sampled_rows(seed: int, count: int, vocabulary: Vocabulary) -> np.ndarray:
  last = min(vocabulary.vocab_size - vocabulary.extra_ids, _SAMPLED_PIECES)
  require(
      count <= last - _NUM_SPECIALS,
      "PromptConfig.length",
      count,
      f"at most the {last - _NUM_SPECIALS} pieces that can be sampled",
  )
  order = np.argsort(_uniform(seed, last - _NUM_SPECIALS), kind="stable")
  return _NUM_SPECIALS + order[:count]


def _label_rows(
    labels: Sequence[str], embedding: np.ndarray, vocabulary: Vocabulary
) -> np.ndarray:
  """One row for each label: the mean over its pieces."""
  rows = []
  for label in labels:
    ids = vocabulary.encode(label)
    require(bool(ids), "PromptConfig.init_text", label, "a label with a piece")
    rows.append(embedding[ids].mean(axis=0))
  return np.stack(rows)


def _initial_prompt(
    config: PromptConfig,
    seed: int,
    embedding: np.ndarray,
    vocabulary: Vocabulary,
) -> np.ndarray:
  shape = (config.length, embedding.shape[1])
  if config.init == "random_uniform":
    unit = _uniform(seed, shape[0] * shape[1]).reshape(shape)
    return (2.0 * unit - 1.0) * _UNIFORM_RANGE
  if config.init == "first_rows":
    require(
        config.length <= len(embedding),
        "PromptConfig.length",
        config.length,
        f"at most the {len(embedding)} rows of the model's embedding",
    )
    return embedding[: config.length]
  if config.init == "text":
    text = config.init_text
    words = text if isinstance(text, str) else " ".join(text)
    ids = vocabulary.encode(words)
    require(bool(ids), "PromptConfig.init_text", words, "a text with a piece")
    return embedding[np.resize(ids, config.length)]
  sampled = embedding[_sampled_rows(seed, config.length, vocabulary)]
  if config.init == "class_labels":
    text = config.init_text
    labels = (text,) if isinstance(text, str) else text
    rows = _label_rows(labels, embedding, vocabulary)[: config.length]
    sampled = np.concatenate([rows, sampled[len(rows) :]])
  return sampled


def _from_file(
    place: str, config: PromptConfig, seeds: Sequence[int], embed_dim: int
) -> np.ndarray:
  """The prompts of a file as starting points: [R, P, H] for R seeds."""
  path, row = _split_place(place)
  prompt, masks = prompt_formats.read_table(
      path, embed_dim=embed_dim, num_pieces=config.num_pieces
  )
  if row is not None:
    places.check_row(row, path, len(prompt), f"{_PLACE}{place}")
    taken = masks_lib.take_rows(masks, np.array([row]))
    prompt, masks = masks_lib.without_absent(prompt[[row]], taken)
  require(
      masks.present is None,
      path,
      "prompts of several lengths",
      f"one of them, {path}#ROW",
  )
  require(
      prompt.shape[1] == config.length,
      f"{path}: prompt",
      prompt.shape[1:],
      f"[P, H] = {(config.length, embed_dim)}, as PromptConfig.length has it",
  )
  masked = np.asarray(masks_lib.apply_masks(prompt, masks))
  if row is None:
    return masked[_source_rows(path, len(prompt), seeds)]
  return np.repeat(masked, len(seeds), axis=0)


def _split_place(place: str) -> tuple[str, int | None]:
  """The path and the row of PROMPT_INIT_FILE."""
  path, row = places.split_row(place, prefix=_PLACE)
  require(bool(path), "PromptConfig.init_file", place, "PATH or PATH#ROW")
  return path, row


def _source_rows(path: str, num_rows: int, seeds: Sequence[int]) -> list[int]:
  """Which row of a file each seed starts from: its own, or the only one."""
  if num_rows == 1:
    return [0] * len(seeds)
  hint = f"or {path}#ROW for all seeds"
  rows = places.recorded_rows(path, num_rows)
  if rows is None:
    require(
        num_rows == len(seeds),
        path,
        f"{num_rows} prompts",
        f"1 or {len(seeds)}, one for each seed, {hint}",
    )
    return list(range(num_rows))
  tasks = list(dict.fromkeys(str(row.get("task")) for row in rows))
  require(
      len(tasks) == 1,
      path,
      f"prompts of the tasks {', '.join(tasks)}",
      f"those of one task, {hint}",
  )
  recorded = [row["seed"] for row in rows]
  for seed in seeds:
    require(
        recorded.count(seed) == 1,
        path,
        f"prompts of the seeds {', '.join(map(str, recorded))}",
        f"one of seed {seed}, {hint}",
    )
  return [recorded.index(seed) for seed in seeds]


def initial_prompts(
    config: PromptConfig,
    seeds: Sequence[int],
    embedding: np.ndarray,
    vocabulary: Vocabulary,
) -> np.ndarray:
  """The values a table starts from; a row depends on its own seed alone.

  Args:
    config: which initialiser. Of a file of one prompt each seed gets that, of
      one of several its own: by its number where the run that wrote the file
      says which is whose, else by its place.
    seeds: R seeds.
    embedding: [V, H], the model's table.
    vocabulary: the model's; says which rows are pieces.

  Returns:
    [R, P, H] float32.

  Raises:
    UserError: more tokens than pieces, or an unfit text or file.
  """
  if config.init_file is not None and config.init == "from_file":
    width = embedding.shape[1]
    return _from_file(config.init_file, config, seeds, width)
  embedding = np.asarray(embedding, np.float32)
  rows = [_initial_prompt(config, s, embedding, vocabulary) for s in seeds]
  return np.stack(rows).astype(np.float32)


def start_digest(
    config: PromptConfig, seeds: Sequence[int], embed_dim: int
) -> str:
  """sha256 of the values that PROMPT_INIT_FILE starts from, wherever it is."""
  assert config.init_file is not None
  start = _from_file(config.init_file, config, seeds, embed_dim)
  return artifacts.digest_arrays({"prompt": start})


def zero_length_table(num_pieces: int, embed_dim: int):
  """A table of one prompt of length 0: the model without a prompt."""
  prompt = jnp.zeros((1, 0, embed_dim))
  return prompt, masks_lib.full_masks(1, 0, num_pieces)
