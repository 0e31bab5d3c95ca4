// A layer's bias and activation in one pass, and both gradients in one pass back.
//
// A block is 32 x 8: a warp lies along a row, so what it reads is one piece of memory. On the way back a block sums
// its columns over `chunk` rows, thread by thread in order; column_totals adds the chunks, first to last.

enum Kind { IDENTITY, RELU, HYPERBOLIC, SOFTPLUS };

template <int KIND> __device__ __forceinline__ real activation(real a) {
  if (KIND == RELU) return a < 0 ? real(0) : a;  // a NaN is not below zero, and stays
  if (KIND == HYPERBOLIC) return TANH(a);
  if (KIND == SOFTPLUS) return (a < 0 ? real(0) : a) + LOG1P(EXP(-FABS(a)));
  return a;
}

// By the activation's value y. softplus: sigmoid(a) = 1 - exp(-y).
template <int KIND> __device__ __forceinline__ real slope(real y) {
  if (KIND == RELU) return y > 0 ? real(1) : real(0);
  if (KIND == HYPERBOLIC) return 1 - y * y;
  if (KIND == SOFTPLUS) return -EXPM1(-y);
  return real(1);
}

template <int KIND> __device__ __forceinline__
void forward(const real* pre, const real* bias, real* out, whole rows, int width) {
  const int j = blockIdx.x * 32 + threadIdx.x;
  if (j >= width) return;
  const real b = bias[j];
  #pragma unroll 4
  for (whole i = (whole)blockIdx.y * 8 + threadIdx.y; i < rows; i += (whole)gridDim.y * 8)
    out[i * width + j] = activation<KIND>(pre[i * width + j] + b);
}

template <int KIND> __device__ __forceinline__
void backward(const real* g, const real* y, real* before, real* sums, whole rows, int width, int chunk) {
  __shared__ real tile[8][33];
  const int j = blockIdx.x * 32 + threadIdx.x;
  const whole first = (whole)blockIdx.y * chunk, last = first + chunk < rows ? first + chunk : rows;
  real sum = 0;
  if (j < width)
    for (whole i = first + threadIdx.y; i < last; i += 8) {
      real d = g[i * width + j];
      if (KIND != IDENTITY) {
        d = KIND == RELU ? (y[i * width + j] > 0 ? d : real(0)) : d * slope<KIND>(y[i * width + j]);
        before[i * width + j] = d;
      }
      sum += d;
    }
  tile[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y == 0 && j < width) {
    for (int k = 1; k < 8; k++) sum += tile[k][threadIdx.x];
    sums[(whole)blockIdx.y * width + j] = sum;
  }
}

extern "C" __global__ void __launch_bounds__(256)
identity(const real* pre, const real* bias, real* out, whole rows, int width) {
  forward<IDENTITY>(pre, bias, out, rows, width);
}

extern "C" __global__ void __launch_bounds__(256)
relu(const real* pre, const real* bias, real* out, whole rows, int width) {
  forward<RELU>(pre, bias, out, rows, width);
}

extern "C" __global__ void __launch_bounds__(256)
hyperbolic(const real* pre, const real* bias, real* out, whole rows, int width) {
  forward<HYPERBOLIC>(pre, bias, out, rows, width);
}

extern "C" __global__ void __launch_bounds__(256)
softplus(const real* pre, const real* bias, real* out, whole rows, int width) {
  forward<SOFTPLUS>(pre, bias, out, rows, width);
}

extern "C" __global__ void __launch_bounds__(256)
relu_grad(const real* g, const real* y, real* before, real* sums, whole rows, int width, int chunk) {
  backward<RELU>(g, y, before, sums, rows, width, chunk);
}

extern "C" __global__ void __launch_bounds__(256)
hyperbolic_grad(const real* g, const real* y, real* before, real* sums, whole rows, int width, int chunk) {
  backward<HYPERBOLIC>(g, y, before, sums, rows, width, chunk);
}

extern "C" __global__ void __launch_bounds__(256)
softplus_grad(const real* g, const real* y, real* before, real* sums, whole rows, int width, int chunk) {
  backward<SOFTPLUS>(g, y, before, sums, rows, width, chunk);
}

extern "C" __global__ void __launch_bounds__(256)
column_sums(const real* g, real* sums, whole rows, int width, int chunk) {
  backward<IDENTITY>(g, nullptr, nullptr, sums, rows, width, chunk);
}

extern "C" __global__ void __launch_bounds__(256)
column_totals(const real* sums, real* out, int chunks, unsigned width) {
  for (unsigned j = me(); j < width; j += everyone()) {
    real total = 0;
    for (int c = 0; c < chunks; c++) total += sums[(whole)c * width + j];
    out[j] = total;
  }
}
