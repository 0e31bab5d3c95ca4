// log p(x|z) of rows of pixels, and in the same pass its derivative by the decoder's output; x may be shared by several
// rows (samples of z): row i has x[i % count].
//
// A row has a warp: eight rows a block, no waiting for each other, and memory enough asked for at once. Few rows would
// leave most of the card idle: then a row has a block. The launcher's block says which, 32 x 8 or 256 x 1.

#include "runtime/common.cu"

struct Bernoulli {
  static const int EACH = 1;  // numbers of the decoder's output for a pixel: a, the logit
  static __device__ __forceinline__ real pixel(const real (&a)[EACH], real x, real (&by)[EACH]) {
    // x a - log(1 + exp(a)) = (x - [a > 0]) a - log(1 + exp(-|a|)), the product 0 where its first factor is
    const real e = EXP(-FABS(a[0])), above = x - (a[0] > 0 ? real(1) : real(0));
    by[0] = x - (a[0] < 0 ? e : real(1)) / (1 + e);
    return (above == 0 ? real(0) : above * a[0]) - LOG1P(e);
  }
};

struct Gaussian {
  static const int EACH = 2;  // the mean's logit, then as many numbers on the log-variance
  static __device__ __forceinline__ real pixel(const real (&a)[EACH], real x, real (&by)[EACH]) {
    // z = (x - mean) / sigma, by the square of 1 / sqrt(sigma), which overflows later; a deviation of 0 stays 0
    const real e = EXP(-FABS(a[0])), r = 1 / (1 + e), root = EXP(real(-0.25) * a[1]);
    const real d = x - (a[0] < 0 ? e * r : r), z = d == 0 ? d : d * root * root;
    const real by_mean = z * (e * r * r);  // sigmoid has the slope e / (1 + e)^2
    by[0] = by_mean == 0 ? by_mean : by_mean * root * root;
    by[1] = real(0.5) * (z * z - 1);
    return real(0.5) * (real(-1.8378770664093453) - a[1] - z * z);
  }
};

// This thread's part of a row, N pixels at once; `each`: pieces of N in a row of x.
template <typename Law, int N> __device__ __forceinline__
real part(const real* output, const real* x, real* residual, whole row, whole datum, int each) {
  real sum = 0;
  for (int j = threadIdx.x; j < each; j += blockDim.x) {
    const piece<N> pixels = load<N>(x, datum * each + j);
    piece<N> a[Law::EACH], by[Law::EACH];
    #pragma unroll
    for (int k = 0; k < Law::EACH; k++) a[k] = load<N>(output, (row * Law::EACH + k) * each + j);
    #pragma unroll
    for (int l = 0; l < N; l++) {
      real one[Law::EACH], slope[Law::EACH];
      #pragma unroll
      for (int k = 0; k < Law::EACH; k++) one[k] = a[k].v[l];
      sum += Law::pixel(one, pixels.v[l], slope);
      #pragma unroll
      for (int k = 0; k < Law::EACH; k++) by[k].v[l] = slope[k];
    }
    #pragma unroll
    for (int k = 0; k < Law::EACH; k++) store(residual, (row * Law::EACH + k) * each + j, by[k]);
  }
  return sum;
}

template <typename Law> __device__ __forceinline__
void log_prob(const real* output, const real* x, real* sums, real* residual, unsigned rows, int width, unsigned count,
              bool pieces) {
  const unsigned row = blockIdx.x * blockDim.y + threadIdx.y;
  if (row >= rows) return;  // a warp leaves together
  real sum = pieces ? part<Law, LANES>(output, x, residual, row, row % count, width / LANES)
                    : part<Law, 1>(output, x, residual, row, row % count, width);
  sum = blockDim.x == 32 ? warp_sum(sum) : block_sum(sum);
  if (threadIdx.x == 0) sums[row] = sum;
}

extern "C" __global__ void __launch_bounds__(256)
bernoulli(const real* logits, const real* x, real* sums, real* residual, unsigned rows, int width, unsigned count,
          bool pieces) {
  log_prob<Bernoulli>(logits, x, sums, residual, rows, width, count, pieces);
}

extern "C" __global__ void __launch_bounds__(256)
gaussian(const real* raw, const real* x, real* sums, real* residual, unsigned rows, int width, unsigned count,
         bool pieces) {
  log_prob<Gaussian>(raw, x, sums, residual, rows, width, count, pieces);
}

// out[i, :] = g[i] a[i, :]
template <int N> __device__ __forceinline__
void scale(const real* g, const real* a, real* out, unsigned rows, unsigned each) {
  for (unsigned k = thread_number(); k < rows * each; k += thread_count()) {
    const real factor = g[k / each];
    piece<N> p = load<N>(a, k);
    #pragma unroll
    for (int l = 0; l < N; l++) p.v[l] *= factor;
    store(out, k, p);
  }
}

extern "C" __global__ void __launch_bounds__(256)
scale_rows(const real* g, const real* a, real* out, unsigned rows, unsigned width, bool pieces) {
  if (pieces) scale<LANES>(g, a, out, rows, width / LANES);
  else scale<1>(g, a, out, rows, width);
}
