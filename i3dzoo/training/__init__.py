"""Fine-tuning: recipes, the training loop, checkpoints that can be resumed, and metrics."""
