"""What every CUDA kernel stands on: compiling, launching, and cuBLAS."""
