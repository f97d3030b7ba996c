"""How a card says a prompt is loaded, and which T5 it belongs to."""

import dataclasses
import json

import pytest

from tests import examples, tiny_experiment
from xprompt_jax.export import contents, load_snippets
from xprompt_jax.prompt_formats.formats import FORMATS


def section(name, kept="float32", computed="float32", on_hub=True):
  return load_snippets.section(
      name,
      base="b",
      revision=None,
      on_hub=on_hub,
      dtypes=(kept, computed),
      lengths=(511, 9),
      length=7,
      embed_dim=12,
  )


def test_every_format_says_how_it_is_loaded():
  for name in FORMATS:
    text = section(name)
    assert text.startswith("## Load it\n\n")
    code = text.partition("```python\n")[2].partition("```")[0]
    compile(code, name, "exec")
    assert ("7" in text) == (name != "peft")
    # As long as the task's own texts.
    for line in ("truncation=True", "max_length=511", "max_new_tokens=9"):
      assert (line in code) == (name == "peft")
    sentinel = "put a sentinel where the mask is and start the decoder\nwith it"
    assert (sentinel in text) == (name == "openprompt")


@pytest.mark.parametrize(
    ("kept", "computed", "code"),
    [
        ("float32", "float32", "t5.float()"),
        ("bfloat16", "float32", "t5.bfloat16().float()"),
        ("bfloat16", "bfloat16", "t5.bfloat16()"),
        ("float32", "bfloat16", "t5.bfloat16()"),
    ],
)
def test_weights_are_rounded_as_they_were(kept, computed, code):
  text = section("peft", kept, computed)
  assert f"\nt5 = {code}  # As the prompt's own T5 was rounded.\n" in text


def test_a_folder_may_lack_a_tokenizer():
  line = "The folder of the T5 has to hold its tokenizer's files"
  assert line in section("peft", on_hub=False)
  assert line not in section("peft", on_hub=True)
  assert line not in section("npy", on_hub=False)


# The base model of a config


@pytest.mark.parametrize(
    ("checkpoint", "name", "revision", "on_hub"),
    [
        ("bundled", None, None, False),
        ("bundled_small", None, None, False),
        ("random:3", None, None, False),
        ("gs://bucket/t5", None, None, False),
        ("google/t5-xl-lm-adapt", "google/t5-xl-lm-adapt", None, True),
        ("t5-small@v1", "t5-small", "v1", True),
        ("HF", "HF", None, False),
        ("T5X", None, None, False),
    ],
)
def test_the_adapter_names_what_transformers_can_load(
    tmp_path, monkeypatch, checkpoint, name, revision, on_hub
):
  monkeypatch.chdir(tmp_path)
  for folder, config in (("HF", {"model_type": "t5"}), ("T5X", {})):
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "config.json").write_text(json.dumps(config))
  made = dataclasses.replace(
      tiny_experiment.CONFIG, checkpoint=checkpoint, model=examples.TINY
  )
  base, hub = contents.base_model(made)
  # A folder by its whole path, or it would look like a hub id.
  name = str(tmp_path / "HF") if name == "HF" else name
  assert (base.name, base.revision, hub) == (name, revision, on_hub)
  assert (base.num_layers, base.num_heads) == (2, 3)
