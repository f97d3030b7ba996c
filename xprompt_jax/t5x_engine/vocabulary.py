"""The vocabulary of a task: what gin files name as VOCABULARY.

T5X refuses a model whose vocabulary is not the task's, and its own gin files for
T5 1.1 name another file of the same pieces than the tasks here.
"""

import importlib

import seqio


def of_task(
    mixture_or_task_name: str, module: str | None = None
) -> seqio.Vocabulary:
  """The vocabulary of a task's inputs.

  Args:
    mixture_or_task_name: registered with seqio, MIXTURE_OR_TASK_NAME.
    module: imported first if it is given, MIXTURE_OR_TASK_MODULE.

  Returns:
    What the task itself has, so `t5x.utils.verify_matching_vocabs` agrees.

  Raises:
    ValueError: seqio's, for a name it does not know.
  """
  if module:
    importlib.import_module(module)
  provider = seqio.get_mixture_or_task(mixture_or_task_name)
  return provider.output_features["inputs"].vocabulary
