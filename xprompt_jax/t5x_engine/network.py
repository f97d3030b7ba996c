"""T5X's own networks with a masked prompt in front of the encoder's inputs.

T5X builds its attention masks from the ids of the inputs and embeds them inside
the encoder. So the prompt's P positions are ids put in front of the inputs, and
where the encoder has those embedded, their place is taken by the masked prompt:

    encoder([masked ; embed(tokens)])

Everything else is T5X's code, for both of its encoder-decoder networks.
"""

from typing import Any

from flax import linen as nn
from flax.linen import partitioning as nn_partitioning
import jax
import jax.numpy as jnp
from jaxtyping import Float
from t5x.examples.scalable_t5 import network as scalable_network
from t5x.examples.t5 import network as t5_network

from xprompt_jax import masks as masks_lib
from xprompt_jax.t5x_engine import names, starting
from xprompt_jax.t5x_engine.starting import StartingPrompt
from xprompt_jax.types import AnyArray, PromptMasks, UserError

# Any id that is not padding: attention sees the position.
_SEEN_ID = 1


class PromptValues(nn.Module):
  """The trained parameter, `prompt` [P, H]."""

  start: StartingPrompt
  embed_dim: int

  @nn.compact
  def __call__(self) -> Float[AnyArray, "P H"]:
    return nn_partitioning.param_with_axes(
        "prompt",
        starting.initializer(
            lambda: self.start.table(self.embed_dim)[0],
            is_there=self.has_variable("params", "prompt"),
        ),
        (self.start.config.length, self.embed_dim),
        jnp.float32,
        axes=(names.PROMPT_AXIS, names.EMBED_AXIS),
    )


class MaskedPrompt(nn.Module):
  """A prompt times its masks, `token_mask` [P] and `piece_mask` [P, K].

  The masks are parameters, which T5X saves and restores; no optimizer moves
  them.
  """

  start: StartingPrompt
  embed_dim: int

  @nn.compact
  def __call__(self) -> Float[AnyArray, "P H"]:
    self.start.config.check_embed_dim(self.embed_dim)
    token_mask = self._mask("token_mask")
    piece_mask = self._mask("piece_mask")
    prompt = PromptValues(self.start, self.embed_dim, name="prompt")()
    masks = PromptMasks(token_mask=token_mask, piece_mask=piece_mask)
    return masks_lib.apply_masks(prompt, masks)

  def _mask(self, name: str) -> Float[AnyArray, "..."]:
    config = self.start.config
    shape: tuple[int, ...] = (config.length, config.num_pieces)
    if name == "token_mask":
      shape = shape[:1]
    mask = nn_partitioning.param_with_axes(
        name,
        starting.initializer(
            lambda: getattr(self.start.table(self.embed_dim)[1], name),
            is_there=self.has_variable("params", name),
        ),
        shape,
        jnp.float32,
        axes=(names.PROMPT_AXIS, names.PIECE_AXIS)[: len(shape)],
    )
    return jax.lax.stop_gradient(mask)


class _PromptInFront:
  """What both networks take for a prompt.

  No module, so that Flax does not wrap its methods: one would intercept itself.
  """

  def _with_prompt_ids(self: Any, tokens):
    """[B, T] -> [B, S]: ids from which T5X makes its attention masks."""
    config = self.start.config
    ids = jnp.full((config.length,), _SEEN_ID, tokens.dtype)
    # While parameters are made there are none, and no output counts.
    scope = names.SCOPE.rpartition("/")[2]
    is_there = self.encoder.has_variable("params", scope)
    if config.pruned_tokens == "ignore" and is_there:
      token_mask = self.encoder.get_variable("params", scope)["token_mask"]
      ids = jnp.where(token_mask > 0, ids, 0)
    ids = jnp.broadcast_to(ids[None], (tokens.shape[0], config.length))
    return jnp.concatenate([ids, tokens], axis=1)

  def _take_place(self: Any, next_method, args, kwargs, context):
    """Embeds [B, S] ids as [B, S, H], of which the first P are the prompt."""
    is_embedding = context.module.name == "token_embedder"
    if not is_embedding or context.method_name != "__call__":
      return next_method(*args, **kwargs)
    length = self.start.config.length
    embedded = next_method(args[0][:, length:], *args[1:], **kwargs)
    masked = MaskedPrompt(
        self.start,
        self.config.emb_dim,
        parent=self.encoder,
        name=names.SCOPE.rpartition("/")[2],
    )()
    masked = jnp.broadcast_to(
        masked[None].astype(embedded.dtype),
        (embedded.shape[0], *masked.shape),
    )
    # [B, P, H] and [B, T, H] -> [B, S, H]
    return jnp.concatenate([masked, embedded], axis=1)


def _prompted(base: type[nn.Module]) -> type[nn.Module]:
  """Makes a network of T5X's one with a prompt."""

  class Prompted(_PromptInFront, base):
    start: StartingPrompt

    def encode(
        self,
        encoder_input_tokens,
        encoder_segment_ids=None,
        enable_dropout=True,
    ):
      """As T5X's: [B, T] -> [B, S, H], the prompt's positions first."""
      _refuse_packing(encoder_segment_ids)
      tokens = self._with_prompt_ids(encoder_input_tokens)
      with nn.intercept_methods(self._take_place):
        return super().encode(tokens, enable_dropout=enable_dropout)

    def decode(
        self,
        encoded,
        encoder_input_tokens,
        decoder_input_tokens,
        decoder_target_tokens,
        encoder_segment_ids=None,
        **kwargs,
    ):
      """As T5X's; `encoded` [B, S, H] and tokens [B, T] as for `encode`."""
      _refuse_packing(encoder_segment_ids)
      return super().decode(
          encoded,
          self._with_prompt_ids(encoder_input_tokens),
          decoder_input_tokens,
          decoder_target_tokens,
          **kwargs,
      )

  Prompted.__name__ = Prompted.__qualname__ = f"Prompted{base.__name__}"
  return Prompted


def _refuse_packing(segment_ids: Any) -> None:
  """Packed examples would share one prompt, at other distances."""
  if segment_ids is not None:
    raise UserError(
        "DatasetConfig.pack: found packed examples, expected pack = False, as"
        " every example has its own copy of the prompt"
    )


_PROMPTED = {
    network.Transformer: _prompted(network.Transformer)
    for network in (t5_network, scalable_network)
}


def with_prompt(module: nn.Module, start: StartingPrompt) -> nn.Module:
  """A network of T5X, with a prompt in front of its encoder's inputs.

  Args:
    module: `t5x.examples.t5.network.Transformer` (T5 1.0 and 1.1, LM-adapted,
      mT5, ByT5), or that of `t5x.examples.scalable_t5` (umT5 as well).
    start: the prompt's size, and where it and its masks start.

  Returns:
    A module with the same parameters and three more, under the names of
    `names.py`. Of `scalable_t5`, layers that are not scanned are not computed
    again in the backward pass, whatever `remat_policy` says.

  Raises:
    UserError: another module.
  """
  prompted = _PROMPTED.get(type(module))
  if prompted is None:
    raise UserError(
        f"module: found {type(module).__module__}.{type(module).__name__},"
        " expected the Transformer of t5x.examples.t5.network or of"
        " t5x.examples.scalable_t5.network"
    )
  return prompted(config=_without_remat(module.config), start=start)


def _without_remat(config: Any) -> Any:
  """The config, by which layers that are not scanned are computed once.

  T5X hands its decoder's masks to such layers by keyword, and `remat` drops what
  is handed by keyword: no position would be hidden from another.
  """
  is_scanned = getattr(config, "scan_layers", True)
  return config if is_scanned else config.replace(remat_policy="none")
