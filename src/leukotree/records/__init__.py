"""Folders on disk and their files: runs, searches, predictions, declarations, and how they were made."""
