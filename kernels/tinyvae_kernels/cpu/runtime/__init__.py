"""What every CPU kernel stands on: compiling, the team of threads, and products in registers."""
