"""Prompts as files: what this program and others write, read by content.

One module for each format (`npy`, `native`, `peft`, `openprompt`, `compact`),
each with a reader and a writer of arrays; `formats.py` is the table of them and
`reading.py` finds out which of them a path is. `export/`, further up, decides
what is written and describes it.
"""

from xprompt_jax.prompt_formats.reading import read_prompt, read_table

__all__ = ["read_prompt", "read_table"]
