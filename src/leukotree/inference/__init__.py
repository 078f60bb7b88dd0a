"""The use of finished runs: their weights are loaded, and predict other images."""
