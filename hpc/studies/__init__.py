"""Study files: what they say, and the runs that they stand for."""
