"""The audit of a packed data set: leakage, copies, confounded sources, unusual images."""
