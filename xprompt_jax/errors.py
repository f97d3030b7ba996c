"""What the user can mend, in one line.

Nothing but the standard library is imported: what reads result files alone
needs these and no JAX.
"""


class UserError(Exception):
  """Something the user can mend: `main` prints it in one line and exits 2.

  The message names the file, field or flag, what was found and what was
  expected.
  """


def mendable(error: Exception) -> str | None:
  """The one line for what the user can mend, or None for a bug.

  That is a `UserError`, a device that is out of memory, or what the operating
  system refused.
  """
  if isinstance(error, UserError):
    # A config refused its fields while gin built it.
    text = str(error).partition("\n  In call to configurable")[0]
  elif isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" in str(error):
    text = (
        "the device is out of memory, expected less at once: ROWS_PER_CHUNK,"
        " SEEDS, ExperimentConfig.eval_batch_size or score_batch_size smaller, or"
        " T5Config.remat = True (not with --engine=t5x); finished stages are kept"
    )
  elif isinstance(error, OSError):
    name = error.filename or "standard output"
    text = f"{name}: {error.strerror or error}"
  else:
    return None
  return " ".join(text.split())
