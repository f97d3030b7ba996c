"""How an exported prompt is loaded, as code that stands in its model card.

One text for each format and program. Paths are relative to the export's folder,
where the card lies.
"""

import json
import pathlib

from xprompt_jax.prompt_formats.formats import FORMATS
from xprompt_jax.weights import checkpoints

_UNKNOWN_BASE = "FOLDER-OR-HUB-ID-OF-THE-T5"

_PEFT = """\
With [PEFT](https://github.com/huggingface/peft) and transformers:

```python
from peft import PeftModel
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

base = {base}
tokenizer = AutoTokenizer.from_pretrained(base{revision})
t5 = AutoModelForSeq2SeqLM.from_pretrained(base{revision})
t5 = {t5}  # As the prompt's own T5 was rounded.
model = PeftModel.from_pretrained(t5, ".").eval()

inputs = tokenizer(
    ["TEXT"],
    return_tensors="pt",
    padding=True,
    truncation=True,
    max_length={inputs_length},
)
ids = model.generate(
    input_ids=inputs["input_ids"],
    attention_mask=inputs["attention_mask"],
    max_new_tokens={targets_length},
)
# Without pad (0) and end (1); to the tokenizer sentinels are special as well.
print(tokenizer.batch_decode([row[row > 1] for row in ids]))
```

Give the attention mask always: without it padding takes part."""

_NPY = """\
With NumPy, as one array [{length}, {width}]:

```python
import numpy as np

prompt = np.load("{file}")
```

In google-research/prompt-tuning:
`--gin_file=prompt_tuning/configs/prompts/from_file.gin` with
`--gin.PROMPT_LENGTH={length}` and `--gin.PROMPT_FILE="'{file}'"`."""

_SAFETENSORS = """\
With safetensors: `prompt` [{length}, {width}] with zeros where it is pruned, its
masks, and importance scores where the run took them.

```python
from safetensors.numpy import load_file

arrays = load_file("{file}")
prompt, token_mask = arrays["prompt"], arrays["token_mask"]
```"""

_OPENPROMPT = """\
With [OpenPrompt](https://github.com/thunlp/OpenPrompt), `plm` and `tokenizer`
as its `load_plm` returns them:

```python
import torch
from openprompt.prompts import SoftTemplate

template = SoftTemplate(
    model=plm,
    tokenizer=tokenizer,
    num_tokens={length},
    text='{{"placeholder":"text_a"}} {{"mask"}}',
)
state = torch.load("{file}", weights_only=True)
# The template's state dict also names the model's own embedding.
template.load_state_dict(state, strict=False)
```

OpenPrompt's T5 wrappers put a sentinel where the mask is and start the decoder
with it. Behind this template the T5 is another model than the one the prompt was
tuned in. The same logits come from `soft_embeds` in front of the embedded text as
`inputs_embeds`, with ones in front of the attention mask."""

_COMPACT = """\
With this program's reader: masked prompts [R, {length}, {width}] and masks.

```python
from xprompt_jax import prompt_formats

arrays = prompt_formats.read_prompt(".", embed_dim={width})
prompt, token_mask = arrays["prompt"], arrays["token_mask"]
```"""

_TEXTS = {
    "peft": _PEFT,
    "npy": _NPY,
    "safetensors": _SAFETENSORS,
    "openprompt": _OPENPROMPT,
    "compact": _COMPACT,
}


_TOKENIZER = """

The folder of the T5 has to hold its tokenizer's files (`t5x import` writes them
where the vocabulary is known): transformers invents one without them."""


def absolute(checkpoint: str) -> str:
  """CHECKPOINT as it is, a folder or file of this disk by its whole path."""
  if checkpoint in checkpoints.BUNDLED_MODELS:
    return checkpoint
  if checkpoint.startswith(("random:", "gs://")):
    return checkpoint
  path = pathlib.Path(checkpoint)
  return str(path.resolve()) if path.exists() else checkpoint


def _rounded(kept: str, computed: str) -> str:
  """Code that rounds weights to what they are kept in, then computed in."""
  if computed == "bfloat16":
    return "t5.bfloat16()"
  return "t5.bfloat16().float()" if kept == "bfloat16" else "t5.float()"


def section(
    output_format: str,
    *,
    base: str | None,
    revision: str | None,
    on_hub: bool,
    dtypes: tuple[str, str],
    lengths: tuple[int, int],
    length: int,
    embed_dim: int,
) -> str:
  """The card's section on loading.

  Args:
    output_format: which format.
    base: the frozen T5 as transformers can load it, a hub id or a folder; None
      if it cannot.
    revision: of the hub id, or None.
    on_hub: whether that is a hub id.
    dtypes: what the T5's weights are kept in and what it computes in, each
      `float32` or `bfloat16`.
    lengths: tokens of an input and of an output at most, EOS included.
    length: P.
    embed_dim: H.

  Returns:
    Markdown with its code.
  """
  text = _TEXTS[output_format].format(
      base=json.dumps(base or _UNKNOWN_BASE),
      revision=f", revision={json.dumps(revision)}" if revision else "",
      t5=_rounded(*dtypes),
      inputs_length=lengths[0],
      targets_length=lengths[1],
      file=FORMATS[output_format].file,
      length=length,
      width=embed_dim,
  )
  if output_format == "peft" and not on_hub:
    text += _TOKENIZER
  if output_format == "peft" and base is None:
    text += (
        "\n\nThe frozen model is not one that transformers can load: `t5x"
        " import --format=huggingface` makes a folder of it that is."
    )
  return (
      f"## Load it\n\n{text}\n\nWith xprompt-jax, and the gin file of the"
      " model and the task:\n\n    t5x eval --gin_file=RECIPE.gin"
      " --gin.PROMPT_FILE=\"'.'\""
  )
