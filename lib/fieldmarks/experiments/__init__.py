"""The experiments: one module each, `python -m fieldmarks.experiments.open_set name=value ...`."""
