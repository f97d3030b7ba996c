"""A toy English and four SuperGLUE-shaped tasks on it, drawn by seed.

The bundled T5 (`xprompt_jax/bundled/`) was pre-trained on this language by
`pretrain/train.py`, so that the demo and the tests need no download. Here are
the words, the generators and the rows, in pure Python; `mini.py` registers
the tasks with seqio, `pretrain/mixture.py` turns the same generators into
pre-training examples.

A passage is a few facts, "anna has a red ball .". Within a passage every
colour and thing is used once, so a changed fact is never true. Three
tasks look facts up; the fourth names the referent of a pronoun, by gender or,
where two people share theirs, by who plausibly has the stated reason.
"""

from collections.abc import Callable, Sequence
import copy
import functools
import random

from xprompt_jax.types import UserError

WOMEN = ("anna", "clara", "emma", "julia", "maria", "nina", "rosa", "tina")
MEN = ("ben", "david", "felix", "jack", "leo", "mark", "paul", "tom")
NAMES = WOMEN + MEN
COLORS = ("black", "blue", "brown", "gray", "green", "pink", "red", "white")
THINGS = (
    *("bag", "ball", "book", "box", "cake", "chair", "coat", "cup"),
    *("drum", "hat", "kite", "lamp", "ring", "shirt", "spoon", "toy"),
)
PLACES = (
    *("bank", "beach", "farm", "lake", "market", "mill", "park", "pool"),
    *("school", "shop", "station", "zoo"),
)
# What was done: (a reason that lies with the one who did it, a reason that
# lies with the other). "kind" alone stands on both sides.
DEEDS = {
    "called": ("lonely", "late"),
    "chased": ("angry", "rude"),
    "feared": ("weak", "rude"),
    "fed": ("kind", "hungry"),
    "helped": ("kind", "busy"),
    "paid": ("rich", "busy"),
    "scolded": ("angry", "late"),
    "thanked": ("glad", "kind"),
}
# Said in front of an input, these call up the skill a task needs.
INSTRUCTIONS = {
    "mini_boolq": ("true or false :", "say if it is true :"),
    "mini_rte": ("does it follow :", "follow or not :"),
    "mini_cb": ("follow , clash or open :", "which of the three :"),
    "mini_wsc": ("who is meant :", "name the person :"),
}
LABELS = {
    "mini_boolq": (True, False),
    "mini_rte": ("entailment", "not_entailment"),
    "mini_cb": ("entailment", "contradiction", "neutral"),
    "mini_wsc": (True, False),
}
TASKS = tuple(LABELS)
# mini_wsc trains on its label-true rows alone: there are as many as others
# have rows.
NUM_ROWS = {
    "train": dict.fromkeys(TASKS, 2000) | {"mini_wsc": 4000},
    "validation": dict.fromkeys(TASKS, 200),
    "test": dict.fromkeys(TASKS, 400),
}
SHOTS = 32
# Share of the passages in which one person has two things. Pre-training shows
# none: without them every tuned prompt would answer every row.
TWO_THINGS = {"mini_boolq": 0.12, "mini_rte": 0.07, "mini_cb": 0.07}

Fact = tuple[str, str, str]  # name, colour, thing


def draw_facts(
    rng: random.Random, count: int, two_things: float = 0.0
) -> list[Fact]:
  """Draws facts that share no name, colour or thing.

  Args:
    rng: what draws.
    count: how many.
    two_things: in this share of the cases one person has two things.
  """
  names = rng.sample(NAMES, count)
  if rng.random() < two_things and count > 1:
    first, second = rng.sample(range(count), 2)
    names[first] = names[second]
  colors, things = rng.sample(COLORS, count), rng.sample(THINGS, count)
  return list(zip(names, colors, things, strict=True))


def say(fact: Fact) -> str:
  """The sentence that states a fact."""
  name, color, thing = fact
  return f"{name} has a {color} {thing} ."


def ask(fact: Fact) -> str:
  """The question whether a fact holds."""
  name, color, thing = fact
  return f"does {name} have a {color} {thing}"


def change(
    rng: random.Random, facts: list[Fact], slot: int, *, known: bool
) -> Fact:
  """Replaces one slot of one of the facts, so that it no longer holds.

  Args:
    rng: what draws.
    facts: the passage.
    slot: 0 the name, 1 the colour, 2 the thing.
    known: take the new word from another fact of the passage, if there is
      one, so that only the combination is wrong.

  Returns:
    A fact that is not in the passage.
  """
  chosen = rng.choice(facts)
  used = [fact[slot] for fact in facts]
  words: Sequence[str] = (NAMES, COLORS, THINGS)[slot]
  others = [word for word in used if word != chosen[slot]]
  if known and others:
    words = others
  else:
    words = [word for word in words if word not in used]
  changed = list(chosen)
  changed[slot] = rng.choice(words)
  name, color, thing = changed
  return name, color, thing


def draw_boolq(
    rng: random.Random,
    label: bool,
    count: int = 3,
    two_things: float = TWO_THINGS["mini_boolq"],
) -> dict:
  """A mini_boolq row: is the fact asked for one of `count` facts?"""
  facts = draw_facts(rng, count, two_things)
  asked = rng.choice(facts)
  if not label:
    asked = change(rng, facts, rng.randrange(3), known=rng.random() < 0.5)
  return {
      "question": ask(asked),
      "passage": " ".join(map(say, facts)),
      "label": label,
  }


def draw_rte(
    rng: random.Random,
    label: str,
    count: int | None = None,
    two_things: float = TWO_THINGS["mini_rte"],
) -> dict:
  """A mini_rte row: is the hypothesis one of `count` (2 or 3) facts?"""
  facts = draw_facts(rng, count or rng.choice((2, 3)), two_things)
  said = rng.choice(facts)
  if label == "not_entailment":
    said = change(rng, facts, rng.randrange(3), known=rng.random() < 0.5)
  return {
      "premise": " ".join(map(say, facts)),
      "hypothesis": say(said),
      "label": label,
  }


def draw_cb(
    rng: random.Random,
    label: str,
    count: int = 2,
    two_things: float = TWO_THINGS["mini_cb"],
) -> dict:
  """A mini_cb row: stated, said otherwise, or about somebody else."""
  facts = draw_facts(rng, count, two_things)
  said = rng.choice(facts)
  if label == "contradiction":
    said = change(rng, facts, rng.choice((1, 2)), known=rng.random() < 0.5)
  elif label == "neutral":
    said = change(rng, facts, 0, known=False)
  return {
      "premise": " ".join(map(say, facts)),
      "hypothesis": say(said),
      "label": label,
  }


def draw_wsc(rng: random.Random, label: bool) -> dict:
  """A mini_wsc row: is span 1 the one whom the pronoun (span 2) means?"""
  people = rng.sample(WOMEN if rng.random() < 0.5 else MEN, 2)
  if rng.random() < 0.5:
    people = [rng.choice(WOMEN), rng.choice(MEN)]
    rng.shuffle(people)
  deed = rng.choice(sorted(DEEDS))
  meant = rng.randrange(2)
  pronoun = "she" if people[meant] in WOMEN else "he"
  text = (
      f"{people[0]} {deed} {people[1]} at the {rng.choice(PLACES)} because"
      f" {pronoun} was {DEEDS[deed][meant]} ."
  )
  named = meant if label else 1 - meant
  return {
      "text": text,
      "target": {
          "span1_index": 2 * named,
          "span1_text": people[named],
          "span2_index": 7,
          "span2_text": pronoun,
      },
      "label": label,
  }


DRAW: dict[str, Callable[..., dict]] = {
    "mini_boolq": draw_boolq,
    "mini_rte": draw_rte,
    "mini_cb": draw_cb,
    "mini_wsc": draw_wsc,
}


def model_text(task: str, row: dict) -> tuple[str, str]:
  """The input and the target the model is given for a row.

  These are the formats of the SuperGLUE tasks in `xprompt_jax/tasks/`, here
  without TensorFlow, for pre-training and for tests.
  """
  if task == "mini_boolq":
    text = f"passage: {row['passage']} question: {row['question']}"
    return text, str(row["label"])
  if task != "mini_wsc":
    text = f"hypothesis: {row['hypothesis']} premise: {row['premise']}"
    return text, row["label"]
  words = row["text"].split()
  index = row["target"]["span2_index"]
  words[index] = f"*{words[index]}*"
  return " ".join(words), row["target"]["span1_text"]


@functools.cache
def _all_rows(task: str) -> dict[str, list[dict]]:
  """Draws every split of a task; no input occurs twice among them."""
  rng = random.Random(f"xprompt_jax {task}")
  labels = LABELS[task]
  seen = set()
  splits = {}
  for split, sizes in NUM_ROWS.items():
    drawn: list[dict] = []
    while len(drawn) < sizes[task]:
      row = DRAW[task](rng, labels[len(drawn) % len(labels)])
      text = model_text(task, row)[0]
      if text not in seen:
        seen.add(text)
        drawn.append(row)
    rng.shuffle(drawn)
    splits[split] = [row | {"idx": idx} for idx, row in enumerate(drawn)]
  return splits


def rows(task: str, split: str) -> list[dict]:
  """The rows of one split, in the schema of SuperGLUE's JSONL files.

  Args:
    task: one of `TASKS`.
    split: "train", "validation", "test", or "train_32": training rows with
      as equal a share of each label as can be, 32 that are trained on (for
      mini_wsc 32 label-true rows and as many others).

  Returns:
    New dicts, the same at every call.

  Raises:
    UserError: an unknown task or split.
  """
  if task not in TASKS:
    raise UserError(f"task: found {task!r}, expected one of {', '.join(TASKS)}")
  expected = (*NUM_ROWS, f"train_{SHOTS}")
  if split not in expected:
    raise UserError(
        f"split of {task}: found {split!r}, expected one of"
        f" {', '.join(expected)}"
    )
  splits = _all_rows(task)
  if split in splits:
    return copy.deepcopy(splits[split])
  count = 2 * SHOTS if task == "mini_wsc" else SHOTS
  labels = LABELS[task]
  left = {
      label: (count + len(labels) - 1 - i) // len(labels)
      for i, label in enumerate(labels)
  }
  chosen = []
  for row in splits["train"]:
    if left[row["label"]] > 0:
      left[row["label"]] -= 1
      chosen.append(row)
  return copy.deepcopy(chosen)
