"""How good a model is: bounds, and estimates of log p(x)."""
