"""Generation on a condition: answers to it, and super-resolution."""
