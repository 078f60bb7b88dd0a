"""The sections of a report. Each module computes the sections of one subject."""
