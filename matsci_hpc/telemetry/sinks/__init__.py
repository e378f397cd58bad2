"""Logs of other programs that a run writes besides its own: TensorBoard, Weights & Biases, MLflow."""
