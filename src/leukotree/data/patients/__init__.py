"""Ids of patients: their spellings, doubts about them, and numbers that replace them."""
