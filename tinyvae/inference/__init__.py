"""What is optimised, and how its gradient is estimated."""
