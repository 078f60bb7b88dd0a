"""The test SLURM, and jobs on it."""
