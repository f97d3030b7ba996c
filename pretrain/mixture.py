"""What the bundled T5 is pre-trained on, drawn from the mini-language.

Four kinds of example:

- a task's input behind its instruction in words, target the task's own;
- look-ups on the same inputs ("what color :"), from which the tasks' skills
  grow: they tell the whole answer where the tasks tell one bit of it;
- span corruption of passages that often say everything twice;
- a task's input without an instruction, target always "go on .", so that
  nothing is shown unasked.

Instructions stand among up to 20 other words and inputs without one behind
up to 20 words, because that is where a soft prompt will stand. No row of the
tasks themselves is drawn. `train.py` trains on this.
"""

import random

from xprompt_jax.tasks import mini_language as lang

UNASKED = "go on ."
NOBODY = "nobody"
# The slot of the fact (name, colour, thing) that each look-up tells.
LOOKUPS = (
    ("who has it :", "name the owner :"),
    ("what color :", "say the color :"),
    ("what thing :", "say the thing :"),
)
# The same on texts of mini_wsc, where they tell a person by role or by gender.
ROLES = (("name who does it :", "who does it :"), ("who is next :",))
GENDERS = (("who is she :",), ("who is he :",))
FILLERS = (
    *("also", "dear", "good", "hello", "here", "just", "listen", "look"),
    *("maybe", "next", "now", "okay", "please", "quick", "read", "reader"),
    *("so", "sure", "task", "then", "there", "think", "well", "work"),
    *("again", "come", "fine", "friend", "let", "more", "once", "right"),
    *("still", "take", "today", "us", "wait", "yet"),
)
MAX_PREFIX = 20  # words in front of the input; a prompt has 20 positions
NUM_SENTINELS = 32
# Shares of the kinds of example.
SHARES = {
    "mini_boolq": 0.14,
    "mini_rte": 0.13,
    "mini_cb": 0.12,
    "mini_wsc": 0.32,
    "lookup": 0.18,
    "spans": 0.05,
    "unasked": 0.06,
}


def words() -> list[str]:
  """Every word of the language, of instructions and of targets, sorted."""
  text = [UNASKED, NOBODY, "because at the was he she *he* *she* True False"]
  text += ["passage: question: hypothesis: premise: does have has a . , :"]
  text += [*lang.NAMES, *lang.COLORS, *lang.THINGS, *lang.PLACES, *FILLERS]
  text += ["entailment not_entailment contradiction neutral"]
  for phrases in (*lang.INSTRUCTIONS.values(), *LOOKUPS):
    text += phrases
  for deed, reasons in lang.DEEDS.items():
    text += [deed, *reasons]
  return sorted(set(" ".join(text).split()))


WORDS = words()


def task_inputs() -> set[str]:
  """The inputs of all rows of all splits: pre-training leaves them out."""
  return {
      lang.model_text(task, row)[0]
      for task in lang.TASKS
      for split in lang.NUM_ROWS
      for row in lang.rows(task, split)
  }


class Mixture:
  """Draws examples, as lists of words.

  Attributes:
    rng: what draws.
    left_out: inputs that are not drawn.
    noise: share of the instructions that stand among other words.
  """

  def __init__(self, rng: random.Random, left_out: set[str], noise: float):
    self.rng = rng
    self.left_out = left_out
    self.noise = noise

  def draw(self, max_facts: int) -> tuple[list[str], list[str]]:
    """Draws one example: input words and target words, without EOS.

    Args:
      max_facts: facts in a passage at most.
    """
    rng = self.rng
    kind = rng.choices(list(SHARES), SHARES.values())[0]
    if kind == "spans":
      return self._spans(max_facts)
    if kind == "lookup":
      return self._lookup(max_facts)
    task = rng.choice(lang.TASKS) if kind == "unasked" else kind
    text, target, _ = self._task(task, max_facts)
    if kind == "unasked":
      noisy = rng.random() < self.noise
      count = rng.randint(1, MAX_PREFIX) if noisy else 0
      return self._noise(count) + text.split(), UNASKED.split()
    return self._instruct(lang.INSTRUCTIONS[task]) + text.split(), [target]

  def _task(self, task: str, max_facts: int) -> tuple[str, str, dict]:
    """Draws a row of a task that is in none of its splits."""
    rng = self.rng
    count = rng.choices((1, 2, 3), (0.1, 0.4, 0.5))[0]
    extra = [] if task == "mini_wsc" else [min(count, max_facts), 0.0]
    while True:
      # The label of mini_wsc says whether its target is right: train on those.
      label = task == "mini_wsc" or rng.choice(lang.LABELS[task])
      row = lang.DRAW[task](rng, label, *extra)
      text, target = lang.model_text(task, row)
      if text not in self.left_out:
        return text, target, row

  def _lookup(self, max_facts: int) -> tuple[list[str], list[str]]:
    """Asks for the owner, colour or thing that belongs to the question's.

    The owner is found by the thing; colour and thing by the name. Half of the
    look-ups are on texts of mini_wsc instead.
    """
    if self.rng.random() < 0.5:
      return self._lookup_person()
    task = self.rng.choice(("mini_boolq", "mini_rte", "mini_cb"))
    text, _, row = self._task(task, max_facts)
    told = row.get("passage") or row["premise"]
    facts = [sentence.split() for sentence in told.split(" .")[:-1]]
    facts = [(fact[0], fact[3], fact[4]) for fact in facts]
    asked = (row.get("question") or row["hypothesis"]).split()
    asked = [word for word in asked if word not in (".", "does")]
    slot = self.rng.randrange(3)
    key, value = (2, asked[4]) if slot == 0 else (0, asked[0])
    found = [fact[slot] for fact in facts if fact[key] == value] or [NOBODY]
    return self._instruct(LOOKUPS[slot]) + text.split(), found

  def _lookup_person(self) -> tuple[list[str], list[str]]:
    """Asks for a person of a mini_wsc text, whatever the pronoun means."""
    text = self._task("mini_wsc", 1)[0].split()
    people = [text[0], text[2]]
    mixed = len({name in lang.WOMEN for name in people}) == 2
    if mixed and self.rng.random() < 0.7:
      people.sort(key=lambda name: name in lang.MEN)
      phrases = GENDERS
    else:
      phrases = ROLES
    i = self.rng.randrange(2)
    return self._instruct(phrases[i]) + text, [people[i]]

  def _spans(self, max_facts: int) -> tuple[list[str], list[str]]:
    """Span corruption: two single words, or one span of up to three."""
    rng = self.rng
    facts = lang.draw_facts(rng, rng.randint(1, max_facts))
    if rng.random() < 0.7:
      facts += rng.sample(facts, rng.randint(1, len(facts)))
    text = " ".join(map(lang.say, facts)).split()
    if rng.random() < 0.2:
      text = self._task("mini_wsc", 1)[0].split()
    if rng.random() < 0.6:
      first, second = sorted(rng.sample(range(len(text)), 2))
      if second == first + 1:
        spans = [(first, second + 1)]
      else:
        spans = [(first, first + 1), (second, second + 1)]
    else:
      start = rng.randrange(len(text) - 2)
      spans = [(start, start + rng.randint(1, 3))]
    return corrupt(text, spans)

  def _noise(self, count: int) -> list[str]:
    """Words that ask for nothing."""
    words = FILLERS if self.rng.random() < 0.5 else WORDS
    return self.rng.choices(words, k=count)

  def _instruct(self, phrases: tuple[str, ...]) -> list[str]:
    """An instruction, often among other words."""
    phrase = self.rng.choice(phrases).split()
    if self.rng.random() >= self.noise:
      return phrase
    count = self.rng.randint(1, MAX_PREFIX - len(phrase))
    before = self.rng.choice((count, self.rng.randint(0, count)))
    noise = self._noise(count)
    return noise[:before] + phrase + noise[before:]


def corrupt(
    text: list[str], spans: list[tuple[int, int]]
) -> tuple[list[str], list[str]]:
  """T5's span corruption of the given [start, end) spans.

  ["a", "b", "c"] with [(1, 2)] gives ["a", "<extra_id_0>", "c"] and
  ["<extra_id_0>", "b", "<extra_id_1>"]; the last sentinel is left out where
  nothing follows the span.
  """
  inputs, targets, end = [], [], 0
  for i, (start, stop) in enumerate(spans):
    sentinel = f"<extra_id_{i}>"
    inputs += [*text[end:start], sentinel]
    targets += [sentinel, *text[start:stop]]
    end = stop
  if end < len(text):
    targets.append(f"<extra_id_{len(spans)}>")
  return inputs + text[end:], targets
