// log p(x|z) of rows of pixels, and in the same pass its derivative by the decoder's output. A block has a row; x may
// be shared by several rows (samples of z): row i has x[i % count].

extern "C" __global__ void __launch_bounds__(256)
bernoulli(const real* logits, const real* x, real* sums, real* residual, int width, unsigned count) {
  // x l - log(1 + exp(l)) = (x - [l > 0]) l - log(1 + exp(-|l|)), the product 0 where its first factor is
  const whole at = (whole)blockIdx.x * width;
  const real* pixels = x + (whole)(blockIdx.x % count) * width;
  real sum = 0;
  for (int j = threadIdx.x; j < width; j += 256) {
    const real a = logits[at + j], p = pixels[j], e = EXP(-FABS(a));
    const real above = p - (a > 0 ? real(1) : real(0));
    sum += (above == 0 ? real(0) : above * a) - LOG1P(e);
    residual[at + j] = p - (a < 0 ? e : real(1)) / (1 + e);
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

extern "C" __global__ void __launch_bounds__(256)
gaussian(const real* joint, const real* x, real* sums, real* residual, int width, unsigned count) {
  const whole at = (whole)blockIdx.x * 2 * width;
  const real* pixels = x + (whole)(blockIdx.x % count) * width;
  real sum = 0;
  for (int j = threadIdx.x; j < width; j += 256) {
    const real a = joint[at + j], logvar = joint[at + width + j];
    const real e = EXP(-FABS(a)), r = 1 / (1 + e), precision = EXP(-logvar);
    const real d = pixels[j] - (a < 0 ? e * r : r);
    sum += real(0.5) * (real(-1.8378770664093453) - logvar - d * d * precision);
    residual[at + j] = d * precision * (e * r * r);  // sigmoid has the slope e / (1 + e)^2
    residual[at + width + j] = real(0.5) * (d * d * precision - 1);
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// out[i, :] = g[i] a[i, :]; `pieces`: rows are whole pieces of 16 bytes.
extern "C" __global__ void __launch_bounds__(256)
scale_rows(const real* g, const real* a, real* out, unsigned rows, unsigned width, bool pieces) {
  if (pieces) {
    const unsigned each = width / LANES;
    for (unsigned k = me(); k < rows * each; k += everyone()) {
      const real factor = g[k / each];
      piece p = reinterpret_cast<const piece*>(a)[k];
      #pragma unroll
      for (int l = 0; l < LANES; l++) p.v[l] *= factor;
      reinterpret_cast<piece*>(out)[k] = p;
    }
  } else {
    for (unsigned k = me(); k < rows * width; k += everyone()) out[k] = g[k / width] * a[k];
  }
}
