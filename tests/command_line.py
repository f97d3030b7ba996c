"""A run so small that tests of the command line can afford it."""

import functools

import pytest

from xprompt_jax import main, tokenization

# R 2, P 4, K 8, H 32, 12 examples a split.
TINY = (
    "--gin_file=xprompt_demo.gin",
    "--gin.CHECKPOINT='random:0'",
    "--gin.T5Config.emb_dim=32",
    "--gin.T5Config.mlp_dim=48",
    "--gin.T5Config.num_heads=2",
    "--gin.T5Config.head_dim=8",
    "--gin.T5Config.num_encoder_layers=1",
    "--gin.T5Config.num_decoder_layers=1",
    "--gin.TaskConfig.max_examples=12",
    "--gin.PROMPT_LENGTH=4",
    "--gin.NUM_PIECES=8",
    "--gin.SEEDS=(0, 5)",
    "--gin.BATCH_SIZE=3",
    "--gin.NUM_STEPS=2",
    "--gin.EVAL_EVERY_STEPS=1",
    "--gin.BUCKETS=(32,)",
    "--gin.TOKEN_RATIOS=(0.5,)",
    "--gin.PIECE_RATIOS=(0.25,)",
)
# What a gin file that is not there is compared with.
RECIPES = (
    "xprompt_boolq.gin, xprompt_cb.gin, xprompt_copa.gin, xprompt_demo.gin,"
    " xprompt_multirc.gin, xprompt_rte.gin, xprompt_superglue.gin,"
    " xprompt_wic.gin, xprompt_wsc.gin"
)


# What registers the bundled tasks, and mixtures of them.
_BUNDLED = ("xprompt_jax.tasks.mini", "tests.mixed_tasks")


def _once(tokenize_task):
  """Tokenises each split of the bundled tasks once a process.

  A run of twelve examples takes less time than reading all rows of the splits
  that they are the first of.
  """
  found = {}

  @functools.wraps(tokenize_task)
  def remembering(*, module, vocabulary, **settings):
    def tokenize():
      return tokenize_task(module=module, vocabulary=vocabulary, **settings)

    if module not in _BUNDLED:
      return tokenize()
    ids = vocabulary and (vocabulary.fingerprint, vocabulary.extra_ids)
    key = (module, ids, *sorted(settings.items()))
    if key not in found:
      found[key] = tokenize()
    return found[key]

  return remembering


_tokenize_task = _once(tokenization.tokenize_task)


def run(*arguments) -> int:
  """`t5x` in this process: its exit status."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(tokenization, "tokenize_task", _tokenize_task)
    try:
      return main.main([str(argument) for argument in arguments])
    except SystemExit as e:  # argparse ends this way.
      return e.code


def refused(capsys, *arguments) -> str:
  """Runs a command that is refused, and returns the one line it prints."""
  assert run(*arguments) == 2
  printed = capsys.readouterr()
  assert printed.out == ""
  assert printed.err.endswith("\n") and printed.err.count("\n") == 1
  return printed.err.removeprefix("t5x: ").removesuffix("\n")
