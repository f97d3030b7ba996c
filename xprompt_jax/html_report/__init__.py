"""`t5x report`: tables and figures from the files of finished runs.

Reads result files alone: neither JAX nor TensorFlow is imported here.
"""
