"""What `test_t5x_engine_devices.py` looks at, from a process of four devices.

    python -m tests.t5x_four_devices FOLDER

prints one JSON object.
"""

import dataclasses
import json
import pathlib
import sys

from flax import traverse_util
from jax.sharding import NamedSharding, PartitionSpec
import numpy as np

from tests import t5x_tables
from tests.tiny_experiment import CONFIG
from xprompt_jax import artifacts, partitioning

# Every axis that the mesh splits is even. With dropout, which goes on as well.
MODEL = dataclasses.replace(
    CONFIG.model, vocab_size=38, num_heads=4, mlp_dim=18, dropout_rate=0.5
)
STEPS = {"batch_size": 4, "num_steps": 6, "eval_every_steps": 3}
KERNEL = "encoder/layers_0/mlp/wo/kernel"


def placement(engines):
  """Where T5X has the frozen weights and a batch."""
  one = engines.of(5, 4)
  own, placed = (
      traverse_util.flatten_dict(dict(params), sep="/")
      for params in (engines.frozen_params, one._trainer._frozen)
  )
  kernel = placed[KERNEL]
  return {
      "same": [name for name in placed if placed[name] is own.get(name)],
      "all": sorted(own),
      "kernel": [str(axis) for axis in kernel.sharding.spec],
      "kernel_shards": sorted(
          {shard.data.shape for shard in kernel.addressable_shards}
      ),
  }


def batch_is_split(engines, trainer):
  """Whether the compiled step takes its batches split over `data`."""
  one = engines.of(5, 4)
  one.begin(t5x_tables.start_of()["prompt"][0], table_masks(trainer), seed=4)
  batch = next(trainer._batches(0, 0))
  step = one._trainer._partitioned_train_step
  lowered = step.func.lower(*step.args, one._trainer.train_state, batch)
  *_, shardings = lowered.compile().input_shardings[0]
  split = NamedSharding(engines.mesh, PartitionSpec("data"))
  return {
      name: shardings[name].is_equivalent_to(split, array.ndim)
      for name, array in batch.items()
  }


def table_masks(trainer):
  return t5x_tables.table_trainer._of_row(trainer.constants, 0)


def resumed(engines, folder):
  """The files of a run, and of one that ended at its second evaluation."""
  start = t5x_tables.start_of()
  found = []
  for name in ("whole", "stopped"):
    trainer = t5x_tables.make_inside(folder / name, engines, **STEPS)
    if name == "stopped":
      evaluate = t5x_tables.stopping(trainer.evaluate, 2)
      try:
        dataclasses.replace(trainer, evaluate=evaluate).train(start)
      except t5x_tables.Stopped:
        state = folder / name / "state" / "row_0"
        found.append(sorted(p.name for p in state.glob("checkpoint_*")))
        # As in a new process.
        engines.of(5, 4)._trainer.dropout_seed = 0
    prompt = np.ascontiguousarray(trainer.train(start).trained["prompt"])
    metrics = (folder / name / artifacts.METRICS).read_text()
    found.append([artifacts.digest_arrays({"prompt": prompt}), metrics])
  return found


def main(folder):
  mesh = partitioning.make_mesh(2)
  engines = t5x_tables.make_engines(MODEL, mesh=mesh)
  trainer = t5x_tables.make_inside(folder / "looked_at", engines, **STEPS)
  found = {
      "mesh": dict(mesh.shape),
      "placement": placement(engines),
      "batch": batch_is_split(engines, trainer),
      "resumed": resumed(engines, folder),
  }
  engines.close()
  print(json.dumps(found))


if __name__ == "__main__":
  main(pathlib.Path(sys.argv[1]))
