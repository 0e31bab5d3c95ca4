// Adam without arithmetic in float64: one thread computes its rate and its correction for all others.

#include "optimizers.cu"

// What all numbers of a step of Adam share: the rate over 1 - beta1^t, and 1 / (1 - beta2^t). beta^t is exp(t log beta).
__device__ __forceinline__
void both_scales(const real* rates, const double* status, real* scales, double beta1, double beta2) {
  const double updates = status[UPDATES];
  scales[0] = real((double)rates[LEARNING_RATE] / -expm1(updates * log(beta1)));
  scales[1] = real(1 / -expm1(updates * log(beta2)));
}

extern "C" __global__ void
adam_scales(const real* rates, const double* status, real* scales, double beta1, double beta2) {
  if (threadIdx.x == 0) both_scales(rates, status, scales, beta1, beta2);
}

extern "C" __global__ void __launch_bounds__(256)
verdict_and_scales(const real* loss, const double* sums, double* status, whole count, double most, const real* rates,
                   real* scales, double beta1, double beta2) {
  const double sum = total(sums, count);
  if (threadIdx.x != 0) return;
  decide(sum, loss, status, most);
  both_scales(rates, status, scales, beta1, beta2);
}

extern "C" __global__ void __launch_bounds__(256)
adam_scaled(real* theta, const real* g, real* m, real* v, const real* scales, const double* status, unsigned count,
            real beta1, real rest1, real beta2, real rest2, real epsilon, bool aligned) {
  if (status[FINITE] != 1.0) return;
  const Adam step = {theta, m, v, g, real(status[CLIP]), scales[0], scales[1], beta1, rest1, beta2, rest2, epsilon};
  everywhere(step, count, aligned, thread_number(), thread_count());
}
