"""Masked prompts inside google-research/t5x: its networks, trainer, gin files.

T5X is in no package index, so `import xprompt_jax` never asks for it; docs/t5x.md
says how it is installed. `requirements`, `starting`, `moving`, `restoring` and
`names` work without it; the others import it or seqio, and are imported by gin
files for T5X and by `t5x train --engine=t5x` alone.

T5X trains one prompt at a time, so what is [R, P, H] elsewhere is [P, H] here.
In T5X's tree of parameters the prompt lies where google-research/prompt-tuning
has it, its masks beside it; they are parameters that no optimizer moves, so a
checkpoint of T5X holds the whole ticket.
"""
