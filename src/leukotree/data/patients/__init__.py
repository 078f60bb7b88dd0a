"""Ids of patients: read, compared, questioned and replaced."""
