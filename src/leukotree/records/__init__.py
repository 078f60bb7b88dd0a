"""Folders on disk and their files: runs, predictions, declarations, and where they came from."""
