"""`leukotree bench`: measurements of training, and advice."""
