// Kernels that are wrong on purpose; the shim must notice each.
extern "C" __global__ void missing_barrier(const float* x, float* out) {      // no barrier between write and read
  __shared__ float s[64];
  s[threadIdx.x] = x[threadIdx.x];
  out[threadIdx.x] = s[63 - threadIdx.x];
}
extern "C" __global__ void missing_second_barrier(const float* x, float* out, int n) {   // write-after-read race
  __shared__ float s[64];
  float a = 0.f;
  for (int k = 0; k < n; k++) { s[threadIdx.x] = x[k * 64 + threadIdx.x]; __syncthreads(); a += s[(threadIdx.x + 33) & 63]; }
  out[threadIdx.x] = a;
}
extern "C" __global__ void divergent_barrier(float* out) {                    // lane 0 at the barrier, the rest at a shuffle
  float v = threadIdx.x;
  if ((threadIdx.x & 31) == 0) __syncthreads();
  out[threadIdx.x] = __shfl_sync(0xffffffffu, v, 0);
}
extern "C" __global__ void shuffle_in_branch(const float* x, float* out) {    // full mask, half of the warp
  float v = x[threadIdx.x];
  if (threadIdx.x < 16) v += __shfl_down_sync(0xffffffffu, v, 1);
  out[threadIdx.x] = v;
}
extern "C" __global__ void early_return(const float* x, float* out, int n) {  // lanes >= n exit, then are read
  if (threadIdx.x >= n) return;
  float v = x[threadIdx.x];
  for (int d = 16; d; d >>= 1) v += __shfl_xor_sync(0xffffffffu, v, d);
  out[threadIdx.x] = v;
}
extern "C" __global__ void uninitialised_shared(float* out) {                 // relies on zeroed shared memory
  __shared__ float s[32];
  s[threadIdx.x] += 1.f;
  out[threadIdx.x] = s[threadIdx.x];
}
extern "C" __global__ void out_of_bounds(const float* x, float* out, int n) { // no guard on the last block
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  out[i] = x[i < n ? i : 0];
}
extern "C" __global__ void reads_beyond(const float* x, float* out, int n) {  // reads one too many, and drops the value
  float v = x[threadIdx.x];
  if (threadIdx.x == n - 1) { volatile float lost = x[n]; (void)lost; }
  out[threadIdx.x] = v;
}
extern "C" __global__ void writes_const(const float* x, float* out, int n) {  // changes what it promised to leave alone
  const_cast<float*>(x)[threadIdx.x] = 1.f;
  out[threadIdx.x] = 2.f;
}
extern "C" __global__ void right(const float* x, float* out, int n) {         // nothing wrong
  if (threadIdx.x < n) out[threadIdx.x] = 2.f * x[threadIdx.x];
}
