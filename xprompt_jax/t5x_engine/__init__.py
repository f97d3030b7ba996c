"""Masked prompts inside google-research/t5x: its networks, trainer, gin files.

T5X is in no package index, so nothing else of the package imports this one, and
`import xprompt_jax` never does; docs/t5x.md says how T5X is installed. Only
`network`, `model`, `optimizer` and `saving` import T5X: `starting` and `moving`
work without it.

T5X trains one prompt at a time, so what is [R, P, H] elsewhere is [P, H] here.
In T5X's tree of parameters the prompt lies where google-research/prompt-tuning
has it, its masks beside it; they are parameters that no optimizer moves, so a
checkpoint of T5X holds the whole ticket.
"""
