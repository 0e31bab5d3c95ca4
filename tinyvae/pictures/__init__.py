"""What a trained model shows of itself."""
