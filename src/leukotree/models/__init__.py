"""Backbones with heads, the loss of each stage, and log p(child | parent)."""
