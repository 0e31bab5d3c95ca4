"""Networks: layers, and optimizers of their parameters."""
