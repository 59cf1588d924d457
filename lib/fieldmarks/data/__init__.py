"""Data sets, their images' pixels, and the batches that a training loop reads."""
