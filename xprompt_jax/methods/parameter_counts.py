"""Closed forms of how many numbers a T5 and its prefixes have."""

from xprompt_jax.t5.config import T5Config


def attention_width(config: T5Config) -> int:
  """Keys of one position, all heads together; need not equal emb_dim."""
  return config.num_heads * config.head_dim


def of_model(config: T5Config) -> int:
  """Parameters of a T5: 2,849,757,184 for T5 1.1 XL and its LM-adapted form.

  Embedding, blocks, one norm for each sublayer and one for each stack,
  position biases, and the output layer where it is not the embedding table.
  """
  attention = 4 * config.emb_dim * attention_width(config)
  mlp = (len(config.mlp_activations) + 1) * config.emb_dim * config.mlp_dim
  encoder = config.num_encoder_layers * (attention + mlp + 2 * config.emb_dim)
  decoder = config.num_decoder_layers * (
      2 * attention + mlp + 3 * config.emb_dim
  )
  layers = config.num_encoder_layers + config.num_decoder_layers
  tables = layers if config.relpos_per_layer else 2
  biases = tables * config.num_heads * config.relpos_num_buckets
  embeddings = 1 if config.logits_via_embedding else 2
  return (
      embeddings * config.vocab_size * config.emb_dim
      + encoder
      + decoder
      + 2 * config.emb_dim
      + biases
  )


def num_attentions(config: T5Config) -> int:
  """Attentions that a prefix goes into: one an encoder layer, two a decoder's."""
  return config.num_encoder_layers + 2 * config.num_decoder_layers


def of_prefix(config: T5Config, length: int) -> int:
  """Keys and values of P = `length` positions in every attention."""
  return 2 * length * attention_width(config) * num_attentions(config)
