"""What every CPU kernel stands on: compiling, threads, and tiles of products. README.md says what it is good for."""
