"""Explanations of finished runs: maps of what a decision depends on, and how well they fit the cell."""
