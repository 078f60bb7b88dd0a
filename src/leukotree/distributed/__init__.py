"""Ranks that train one model together: their group, and how they share weights and gradients."""
