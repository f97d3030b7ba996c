"""Makes every test run strictly; warnings are errors through pyproject.toml.

The import hook checks each shape annotation of the package when its function
is called, so this file must be read before any module of it is imported.
"""

import jax
from jaxtyping import install_import_hook

install_import_hook("xprompt_jax", "beartype.beartype")

# [B] + [B, P] is a mistake far more often than it is meant.
jax.config.update("jax_numpy_rank_promotion", "raise")
