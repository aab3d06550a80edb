"""Log trainings to TensorBoard, MLflow or Weights & Biases."""
