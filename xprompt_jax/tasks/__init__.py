"""Tasks, registered with seqio by the modules that gin names as strings.

`super_glue` and `mini` register; they and `sources` need TensorFlow. The other
modules are plain Python, and evaluation imports `metrics` and `postprocessors`
on machines without TensorFlow, so nothing is imported here.
"""
