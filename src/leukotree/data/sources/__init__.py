"""Import public data sets: one module for each layout, and what they share."""
