"""SLURM and the site: its commands, its queue, and what differs between clusters."""
