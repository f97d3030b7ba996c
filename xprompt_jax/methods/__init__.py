"""Prompt tuning and the paper's baselines: what differs between them.

Each has a module; `trainer.py` runs any of them and knows none. gin files name
one in METHOD and bind `methods.MethodConfig`.
"""

from xprompt_jax.methods.config import (
    PROMPT_TUNING,
    MethodConfig,
    build_baseline,
)
from xprompt_jax.methods.protocol import Adapted, Baseline, Method

__all__ = [
    "PROMPT_TUNING",
    "Adapted",
    "Baseline",
    "Method",
    "MethodConfig",
    "build_baseline",
]
