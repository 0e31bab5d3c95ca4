"""Pictures of a trained model and of its training."""
