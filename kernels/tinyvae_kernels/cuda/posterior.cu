// The sampled posterior and its KL in one pass, and the gradient of both in one pass back; the gate of a flow; the KL
// of Gammas and of Dirichlet vectors. A warp has a datum.

#include "runtime/common.cu"
#include "runtime/philox.cu"
#include "runtime/stirling.cu"

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

// ---- Gamma and Dirichlet --------------------------------------------------------------------------------------------
// With f(t) = e^t - 1 - t they are (distributions/gamma.py and dirichlet.py derive them)
//     Gamma      a0 f(l) + f(log(a0 / a)) / 2,                                  l = log(a / a0) - log(b / b0)
//     Dirichlet  sum of a0 f(l) + (1 - m) f(log(a0 / a)) / 2 + m f(-l) / 2,     l = log(a / a0) - log(s / s0)
// with m = a / s, and the gaps of Stirling's remainder. p is repeated along the leading axes of q.

extern "C" __global__ void __launch_bounds__(256)
gamma_kl(const real* a, const real* b, const real* a0, const real* b0, real* out, unsigned count, unsigned period) {
  for (unsigned i = thread_number(); i < count; i += thread_count()) {
    const double shape = a[i], shape0 = a0[i % period], ratio = log_quotient(shape, shape0);
    const double means = ratio - log_quotient(b[i], b0[i % period]), gap = remainder_gap(shape0, shape);
    const double large = shape0 * exp_remainder(means) + 0.5 * exp_remainder(-ratio);
    out[i] = real(large + (gap < 0 ? 0.0 : gap));
  }
}

// A warp has a vector.
extern "C" __global__ void __launch_bounds__(256)
dirichlet_kl(const real* a, const real* a0, real* out, unsigned rows, int width, unsigned period) {
  const unsigned row = blockIdx.x * 8 + threadIdx.x / 32;
  if (row >= rows) return;  // a warp leaves together
  const real *q = a + (whole)row * width, *p = a0 + (whole)(row % period) * width;
  const int lane = threadIdx.x % 32;
  double s = 0, s0 = 0, others = 0, sum = 0, gaps = 0;
  for (int j = lane; j < width; j += 32) s += q[j], s0 += p[j];
  s = __shfl_sync(ALL, warp_sum(s), 0);
  s0 = __shfl_sync(ALL, warp_sum(s0), 0);
  // 1 - m is that of the others, which s - a has no digits of where a is nearly all of s
  for (int j = lane; j < width; j += 32) others += 2.0 * q[j] <= s ? q[j] : real(0);
  others = __shfl_sync(ALL, warp_sum(others), 0);
  const double log_sums = log_quotient(s, s0);
  for (int begin = 0; begin <= width; begin += 32) {  // the same turns for all lanes, as above
    const int j = begin + lane;  // number `width` is that of the sums, of which the gap counts alone
    const double shape = j < width ? q[j] : s, shape0 = j < width ? p[j] : s0, gap = remainder_gap(shape0, shape);
    const double ratio = log_quotient(shape, shape0), means = ratio - log_sums;
    const double rest = (2 * shape <= s ? s - shape : others) * exp_remainder(-ratio) + shape * exp_remainder(-means);
    sum += j < width ? shape0 * exp_remainder(means) + 0.5 / s * rest : 0.0;
    gaps += j < width ? gap : j == width ? -gap : 0.0;
  }
  sum = warp_sum(sum);
  gaps = warp_sum(gaps);
  if (lane == 0) out[row] = real(sum + (gaps < 0 ? 0.0 : gaps));
}
