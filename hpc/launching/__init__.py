"""Runs, and where they happen: this process, local ranks, or jobs."""
