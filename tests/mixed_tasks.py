"""A user's module with mixtures of the bundled tasks, of every kind."""

import functools

import seqio

from xprompt_jax.tasks import mini  # Registers the members. # noqa: F401

TASKS = ("mini_boolq", "mini_cb", "mini_rte", "mini_wsc")


def _add(name, tasks, default_rate=None):
  if name not in seqio.MixtureRegistry.names():
    seqio.MixtureRegistry.add(name, tasks, default_rate=default_rate)


_add("four_equal", TASKS, 1.0)
_add("four_proportional", TASKS, seqio.mixing_rate_num_examples)
_add(
    "four_temperature",
    TASKS,
    functools.partial(seqio.mixing_rate_num_examples, temperature=2.0),
)
_add("two_weighted", [("mini_rte", 3), ("mini_cb", 1)])
# 4 of 10 go to the two inside, 3 of which to RTE.
_add("nested", [("two_weighted", 4), ("mini_wsc", 6)])
