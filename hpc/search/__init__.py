"""The search of hyperparameters with Ray Tune, its records, and what it chose."""
