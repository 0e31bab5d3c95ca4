// The sampled posterior and its KL in one pass, and the gradient of both in one pass back. A warp has a datum.

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
