"""Backbones with heads, what each stage minimises, and log p(child | parent)."""
