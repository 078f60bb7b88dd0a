"""The search of hyperparameters with Ray Tune, its record, and the values that it chose."""
