"""What every CPU kernel stands on: compiling, threads, and tiles of products. docs/speed.md says what each is worth."""
