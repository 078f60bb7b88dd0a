"""The verbs of `leukotree`: of each its arguments, and the call of the function that does it.

A verb prints its answer and returns the exit code. What is slow to import is imported when a verb runs.
"""
