"""Where the prompt and its masks lie in T5X's tree of parameters.

The prompt has the place that google-research/prompt-tuning gives it, so its
checkpoints are restored and its scripts find ours.
"""

SCOPE = "encoder/prompt"
PROMPT = f"{SCOPE}/prompt/prompt"  # [P, H]
TOKEN_MASK = f"{SCOPE}/token_mask"  # [P]
PIECE_MASK = f"{SCOPE}/piece_mask"  # [P, K]
# Their logical axes, which T5X's own rules lack: prompts are replicated, where
# `embed` may be partitioned.
PROMPT_AXIS = "prompt"
EMBED_AXIS = "prompt_embed"
PIECE_AXIS = "pieces"
