// The sampled posterior and its KL in one pass, and the gradient of both in one pass back; the gate of a flow. A warp
// has a datum.

#include "runtime/common.cu"
#include "runtime/philox.cu"

// exp(x) - 1 - x, by its series x^2/2 (1 + x/3 (1 + x/4 (1 + ...))) where the difference would cancel
__device__ __forceinline__ real exp_remainder(real x) {
  real series = 1;
  #pragma unroll
  for (int k = SINGLE ? 11 : 18; k > 2; k--) series = FMA(series, x * (real(1) / k), real(1));
  return FABS(x) < 1 ? real(0.5) * x * x * series : EXPM1(x) - (x < 1000 ? x : real(0));  // not infinity - infinity
}

// Where a launch draws its own noise.
struct Address { unsigned step, seed, stream, site; };

template <bool DRAWN, typename Eps> __device__ __forceinline__
void forward(const Address address, const real* raw, Eps* eps, real* z, real* kl, int samples, unsigned batch,
             int latent) {
  const unsigned b = blockIdx.x * 8 + threadIdx.x / 32;
  if (b >= batch) return;  // a warp leaves together
  const real* mu = raw + (whole)2 * b * latent;
  const int lane = threadIdx.x % 32;
  real sum = 0;
  // The same turns for all lanes: where a warp parts, keeping track of it takes registers, and on some cards memory.
  for (int begin = 0; begin < latent; begin += 32) {
    const int j = begin + lane;
    const real logvar = j < latent ? mu[latent + j] : real(0), m = j < latent ? mu[j] : real(0);
    const real sigma = EXP(real(0.5) * logvar);
    sum += FMA(m, m, exp_remainder(logvar));  // AEVB appendix B, no term negative; 0 beyond the last latent
    for (int s = 0; s < samples; s++) {       // AEVB eq. (4): z = mu + sigma eps
      const unsigned at = (s * batch + b) * latent + j;
      if (j < latent) {
        if constexpr (DRAWN) eps[at] = standard_normal(at, address.site, address.step, address.seed, address.stream);
        z[at] = FMA(sigma, eps[at], m);
      }
    }
  }
  sum = warp_sum(sum);
  if (lane == 0) kl[b] = real(0.5) * sum;
}

extern "C" __global__ void __launch_bounds__(256)
sample_kl(const real* raw, const real* eps, real* z, real* kl, int samples, unsigned batch, int latent) {
  forward<false>({}, raw, eps, z, kl, samples, batch, latent);
}

// The same with its own noise, left in eps for the gradient: the numbers of `normal`.
extern "C" __global__ void __launch_bounds__(256)
drawn_sample_kl(const whole* counters, unsigned seed, unsigned stream, unsigned site, const real* raw, real* eps,
                real* z, real* kl, int samples, unsigned batch, int latent) {
  forward<true>({(unsigned)counters[STEP], seed, stream, site}, raw, eps, z, kl, samples, batch, latent);
}

extern "C" __global__ void __launch_bounds__(256)
sample_kl_grad(const real* dz, const real* dkl, const real* raw, const real* eps, real* out, int samples,
               unsigned batch, unsigned latent) {
  for (unsigned i = thread_number(); i < batch * latent; i += thread_count()) {
    const unsigned b = i / latent, at = i + b * latent;  // of mu; logvar is `latent` numbers on
    const real sigma = EXP(real(0.5) * raw[at + latent]);
    real by_z = 0, by_sigma = 0;
    for (int s = 0; s < samples; s++) {
      const unsigned there = s * batch * latent + i;
      const real d = dz[there];
      by_z += d;
      by_sigma = FMA(d, eps[there], by_sigma);
    }
    out[at] = FMA(dkl[b], raw[at], by_z);
    out[at + latent] = real(0.5) * FMA(by_sigma, sigma, dkl[b] * EXPM1(raw[at + latent]));
  }
}

// ---- KL from another Gaussian, N(m, s^2) ----

// 1 / sqrt(s), and a large number where that is infinite, so that 0 times it is 0; NaN stays
__device__ __forceinline__ real inverse_root(real logvar) {
  const real root = EXP(real(-0.25) * logvar), most = real(SINGLE ? 3.3e38 : 1.7e308);
  return root > most ? most : root;
}

extern "C" __global__ void __launch_bounds__(256)
sample_kl_from(const real* raw, const real* other, const real* eps, real* z, real* kl, int samples, unsigned batch,
               int latent) {
  const unsigned b = blockIdx.x * 8 + threadIdx.x / 32;
  if (b >= batch) return;  // a warp leaves together
  const whole row = (whole)2 * b * latent;
  const int lane = threadIdx.x % 32;
  real sum = 0;
  for (int begin = 0; begin < latent; begin += 32) {
    const int j = begin + lane;
    const bool inside = j < latent;
    const real mu = inside ? raw[row + j] : real(0), logvar = inside ? raw[row + latent + j] : real(0);
    const real m = inside ? other[row + j] : real(0), log_s2 = inside ? other[row + latent + j] : real(0);
    const real root = inverse_root(log_s2), away = (mu - m) * root * root, sigma = EXP(real(0.5) * logvar);
    sum += FMA(away, away, exp_remainder(logvar - log_s2));  // no term negative; 0 beyond the last latent
    for (int s = 0; s < samples; s++) {
      const unsigned at = (s * batch + b) * latent + j;
      if (inside) z[at] = FMA(sigma, eps[at], mu);
    }
  }
  sum = warp_sum(sum);
  if (lane == 0) kl[b] = real(0.5) * sum;
}

extern "C" __global__ void __launch_bounds__(256)
sample_kl_from_grad(const real* dz, const real* dkl, const real* raw, const real* other, const real* eps, real* out,
                    real* by_other, int samples, unsigned batch, unsigned latent) {
  for (unsigned i = thread_number(); i < batch * latent; i += thread_count()) {
    const unsigned b = i / latent, at = i + b * latent;  // of mu; logvar is `latent` numbers on
    real by_z = 0, by_sigma = 0;
    for (int s = 0; s < samples; s++) {
      const unsigned there = s * batch * latent + i;
      const real d = dz[there];
      by_z += d;
      by_sigma = FMA(d, eps[there], by_sigma);
    }
    const real root = inverse_root(other[at + latent]), away = (raw[at] - other[at]) * root * root;
    const real by_mu = dkl[b] * (away * root * root), half = real(0.5) * dkl[b];
    const real by_logvar = half * EXPM1(raw[at + latent] - other[at + latent]);
    out[at] = by_z + by_mu;
    out[at + latent] = FMA(real(0.5) * by_sigma, EXP(real(0.5) * raw[at + latent]), by_logvar);
    by_other[at] = -by_mu;
    by_other[at + latent] = -by_logvar - half * (away * away);
  }
}

// ---- the gate of an inverse autoregressive flow: f = c g z + (1 - g) m with g = sigmoid(a) and a = s + opening ----
// c is 1 / sigmoid(opening). A row of raw has m, then as many numbers s. A warp has a row.

// g and 1 - g, neither by a difference
__device__ __forceinline__ void opened(real a, real e, real& g, real& rest) {
  const real r = 1 / (1 + e);
  g = a < 0 ? e * r : r;
  rest = a < 0 ? r : e * r;
}

extern "C" __global__ void __launch_bounds__(256)
gate(const real* raw, const real* z, real* moved, real* sums, double opening, unsigned rows, int width) {
  const unsigned row = blockIdx.x * 8 + threadIdx.x / 32;
  if (row >= rows) return;  // a warp leaves together
  const real* m = raw + (whole)2 * row * width;
  const whole begin = (whole)row * width;
  const real shut = EXP(-(real)opening), log_c = LOG1P(shut);
  real sum = 0;
  for (int j = threadIdx.x % 32; j < width; j += 32) {
    const real a = m[width + j] + (real)opening, e = EXP(-FABS(a));
    real g, rest;
    opened(a, e, g, rest);
    moved[begin + j] = FMA((1 + shut) * g, z[begin + j], rest * m[j]);
    sum += (a < 0 ? a : real(0)) - LOG1P(e) + log_c;
  }
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) sums[row] = sum;
}

extern "C" __global__ void __launch_bounds__(256)
gate_grad(const real* dmoved, const real* dsum, const real* raw, const real* z, real* by_raw, real* by_z,
          double opening, unsigned rows, unsigned width) {
  const real c = 1 + EXP(-(real)opening);
  for (unsigned i = thread_number(); i < rows * width; i += thread_count()) {
    const unsigned row = i / width, at = i + row * width;  // of m; s is `width` numbers on
    const real a = raw[at + width] + (real)opening, e = EXP(-FABS(a)), d = dmoved[i];
    real g, rest;
    opened(a, e, g, rest);
    by_z[i] = d * (c * g);
    by_raw[at] = d * rest;
    by_raw[at + width] = FMA(d * FMA(c, z[i], -raw[at]), g, dsum[row]) * rest;
  }
}
