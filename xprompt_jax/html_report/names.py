"""What readers call the things that result files name."""

# In the order in which tables have them.
METHODS = {
    "no_prompt": "no prompt",
    "fine_tuning": "fine-tuning",
    "prompt_tuning": "prompt tuning",
    "prompt_tuning_longer": "prompt tuning, steps of the baselines",
    "prefix_tuning": "prefix tuning",
    "p_tuning": "P-tuning",
    "p_tuning_v2": "P-tuning v2",
    "token": "token pruning",
    "piece": "piece pruning",
    "xprompt": "XPrompt",
    "xprompt_magnitude": "XPrompt, magnitude scores",
    "xprompt_signed": "XPrompt, signed scores",
    "xprompt_random": "random tickets, same search",
    "reversed": "Reversed XPrompt",
    "random": "Random Prompt",
    "magnitude": "largest magnitude",
    "length": "Length Prompt",
    "retrained": "retrained, nothing pruned",
    "no_rewind": "no rewind",
    "auto_scores": "ratio chosen from scores",
    "auto_loss": "ratio chosen from losses",
}
# Tickets that stand beside XPrompt's to show what makes it (Figure 5).
CONTROLS = (
    "reversed",
    "random",
    "magnitude",
    "length",
    "retrained",
    "no_rewind",
)
SEARCHES = ("xprompt_magnitude", "xprompt_signed", "xprompt_random")

SPLITS = {
    "validation": "validation",
    "heldout": "held-out half of validation",
    "test": "test",
}
PROTOCOLS = {"paper": "paper protocol", "heldout": "held-out protocol"}

FIELDS = {
    "prompt.length": "prompt length",
    "prompt.num_pieces": "pieces per token",
    "prompt.init": "initialisation",
    "prompt.init_file": "initialised from",
    "prompt.init_text": "initial text",
    "prompt.pruned_tokens": "pruned tokens",
    "search.granularities": "granularity",
    "search.strategy": "search",
    "search.rewind_to": "rewound to",
    "search.piece_scope": "pieces compared",
    "search.token_ratios": "token ratios",
    "search.piece_ratios": "piece ratios",
    "optimizer.learning_rate": "learning rate",
    "train.num_steps": "steps",
    "train.num_epochs": "epochs",
    "train.batch_size": "batch size",
    "task.few_shot": "training examples",
    "task.max_examples": "examples at most",
    "model": "model size",
    "method.name": "method",
    "method.mid_dim": "width of the MLP",
    "method.prompt_encoder": "prompt encoder",
}
_VALUES = {
    "sampled_vocab": "sampled vocabulary",
    "random_uniform": "random uniform",
    "class_labels": "class labels",
    "from_file": "from another prompt (transfer)",
    "first_rows": "first rows",
    "tuned": "tuned prompt",
    "initial": "initial prompt",
    "per_token": "per token",
    "token_then_piece": "token, then piece",
}


def method(name: str) -> str:
  """A method's title; one that is not known keeps its name."""
  return METHODS.get(name, name.replace("_", " "))


def ticket(granularities: object) -> str:
  """XPrompt's title, with what it prunes where that is not both."""
  title = METHODS["xprompt"]
  if granularities in (["token"], ["piece"]):
    return f"{title} ({granularities[0]}s alone)"
  return title


def in_order(methods: list[str]) -> list[str]:
  """Methods in the order of tables, unknown ones last."""
  known = list(METHODS)
  return sorted(
      dict.fromkeys(methods),
      key=lambda m: known.index(m) if m in known else len(known),
  )


def field(name: str) -> str:
  """A config field's title."""
  return FIELDS.get(name, name)


def value(found: object) -> str:
  """A config field's value as text."""
  if found is None:
    return "-"
  if isinstance(found, bool):
    return "yes" if found else "no"
  if isinstance(found, (list, tuple)):
    return " and ".join(map(value, found)) or "none"
  if isinstance(found, (int, float)):
    return f"{found:,}" if isinstance(found, int) else f"{found:g}"
  text = str(found)
  if "/" in text:  # A path keeps its name.
    return text
  return _VALUES.get(text, text.replace("_", " "))
