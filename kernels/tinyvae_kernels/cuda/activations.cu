// A layer's bias and activation in one pass, and both gradients in one pass back.
//
// A block is 32 x 8: a warp lies along a row, N numbers a thread, so what it reads is one stretch of memory. A thread asks
// for the numbers of AHEAD rows before it waits for the first. On the way back a block sums its columns over `chunk` rows,
// thread by thread in order; where that leaves several rows of sums, column_sums adds these in its turn.

#include "runtime/common.cu"

const int AHEAD = 2;  // by hand: the compiler moves no load across a store; unrolled further it needs more registers
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

template <int KIND, int N> __device__ __forceinline__
void forward(const real* pre, const real* bias, real* out, whole rows, int each) {  // pieces of N in a row
  const int j = blockIdx.x * 32 + threadIdx.x;
  if (j >= each) return;
  const piece<N> b = load<N>(bias, j);
  const whole step = (whole)gridDim.y * 8;
  #pragma unroll 1
  for (whole i = (whole)blockIdx.y * 8 + threadIdx.y; i < rows; i += AHEAD * step) {
    piece<N> p[AHEAD];
    #pragma unroll
    for (int k = 0; k < AHEAD; k++)
      if (i + k * step < rows) p[k] = load<N>(pre, (i + k * step) * each + j);
    #pragma unroll
    for (int k = 0; k < AHEAD; k++)
      if (i + k * step < rows) {
        #pragma unroll
        for (int l = 0; l < N; l++) p[k].v[l] = activation<KIND>(p[k].v[l] + b.v[l]);
        store(out, (i + k * step) * each + j, p[k]);
      }
  }
}

template <int KIND> __device__ __forceinline__
void forward(const real* pre, const real* bias, real* out, whole rows, int width, bool pieces) {
  if (pieces) forward<KIND, LANES>(pre, bias, out, rows, width / LANES);
  else forward<KIND, 1>(pre, bias, out, rows, width);
}

template <int KIND, int N> __device__ __forceinline__
void backward(const real* g, const real* y, real* before, real* sums, whole rows, int each, int chunk) {
  __shared__ piece<N> tile[8][32];
  const int j = blockIdx.x * 32 + threadIdx.x;
  const whole first = (whole)blockIdx.y * chunk, last = first + chunk < rows ? first + chunk : rows;
  piece<N> sum = {};
  if (j < each) {
    #pragma unroll 1
    for (whole i = first + threadIdx.y; i < last; i += 8 * AHEAD) {
      piece<N> d[AHEAD], value[AHEAD];
      #pragma unroll
      for (int k = 0; k < AHEAD; k++)
        if (i + 8 * k < last) {
          d[k] = load<N>(g, (i + 8 * k) * each + j);
          if (KIND != IDENTITY) value[k] = load<N>(y, (i + 8 * k) * each + j);
        }
      #pragma unroll
      for (int k = 0; k < AHEAD; k++)
        if (i + 8 * k < last) {
          #pragma unroll
          for (int l = 0; l < N; l++) {
            real& by = d[k].v[l];
            if (KIND == RELU) by = value[k].v[l] > 0 ? by : value[k].v[l];  // which is 0, or NaN at a NaN
            else if (KIND != IDENTITY) by *= slope<KIND>(value[k].v[l]);
            sum.v[l] += by;
          }
          if (KIND != IDENTITY) store(before, (i + 8 * k) * each + j, d[k]);
        }
    }
  }
  tile[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y == 0 && j < each) {
    for (int k = 1; k < 8; k++) {
      #pragma unroll
      for (int l = 0; l < N; l++) sum.v[l] += tile[k][threadIdx.x].v[l];
    }
    store(sums, (whole)blockIdx.y * each + j, sum);
  }
}

template <int KIND> __device__ __forceinline__
void backward(const real* g, const real* y, real* before, real* sums, whole rows, int width, int chunk, bool pieces) {
  if (pieces) backward<KIND, LANES>(g, y, before, sums, rows, width / LANES, chunk);
  else backward<KIND, 1>(g, y, before, sums, rows, width, chunk);
}

extern "C" __global__ void __launch_bounds__(256)
identity(const real* pre, const real* bias, real* out, whole rows, int width, bool pieces) {
  forward<IDENTITY>(pre, bias, out, rows, width, pieces);
}

extern "C" __global__ void __launch_bounds__(256)
relu(const real* pre, const real* bias, real* out, whole rows, int width, bool pieces) {
  forward<RELU>(pre, bias, out, rows, width, pieces);
}

extern "C" __global__ void __launch_bounds__(256)
hyperbolic(const real* pre, const real* bias, real* out, whole rows, int width, bool pieces) {
  forward<HYPERBOLIC>(pre, bias, out, rows, width, pieces);
}

extern "C" __global__ void __launch_bounds__(256)
softplus(const real* pre, const real* bias, real* out, whole rows, int width, bool pieces) {
  forward<SOFTPLUS>(pre, bias, out, rows, width, pieces);
}

extern "C" __global__ void __launch_bounds__(256)
relu_grad(const real* g, const real* y, real* before, real* sums, whole rows, int width, int chunk,
          bool pieces) {
  backward<RELU>(g, y, before, sums, rows, width, chunk, pieces);
}

extern "C" __global__ void __launch_bounds__(256)
hyperbolic_grad(const real* g, const real* y, real* before, real* sums, whole rows, int width, int chunk,
                bool pieces) {
  backward<HYPERBOLIC>(g, y, before, sums, rows, width, chunk, pieces);
}

extern "C" __global__ void __launch_bounds__(256)
softplus_grad(const real* g, const real* y, real* before, real* sums, whole rows, int width, int chunk,
              bool pieces) {
  backward<SOFTPLUS>(g, y, before, sums, rows, width, chunk, pieces);
}

extern "C" __global__ void __launch_bounds__(256)
column_sums(const real* g, real* sums, whole rows, int width, int chunk, bool pieces) {
  backward<IDENTITY>(g, nullptr, nullptr, sums, rows, width, chunk, pieces);
}
