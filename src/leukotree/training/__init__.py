"""One run: its stages, steps, checkpoints and measurements."""
