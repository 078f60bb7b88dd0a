"""Study files, and the runs that follow from them."""
