"""Evaluation: protocols, predictions and metrics."""
