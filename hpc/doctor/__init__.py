"""What is checked before anything starts: the cluster, the machine, the study."""
