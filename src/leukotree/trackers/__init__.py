"""A run's metrics for TensorBoard and MLflow. The files of the run stay the truth; these follow them."""
