// Adam without numbers of float64: its rate and its correction are computed once, in the verdict's single block.

#include "runtime/common.cu"

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

// The verdict of optimizers.cu, and then the scales: one block, in which one thread goes on.
extern "C" __global__ void __launch_bounds__(256)
verdict_and_scales(const real* loss, const double* sums, double* status, whole count, double most, const real* rates,
                   real* scales, double beta1, double beta2) {
  double sum = 0;
  for (whole i = threadIdx.x; i < count; i += 256) sum += sums[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) {
    const double norm = sqrt(sum), value = (double)loss[0];
    const bool sound = norm - norm == 0 && value - value == 0;
    status[NORM] = norm;
    status[FINITE] = sound ? 1.0 : 0.0;
    status[CLIP] = norm <= most ? 1.0 : most / norm;
    if (sound) status[UPDATES] += 1.0;
    both_scales(rates, status, scales, beta1, beta2);
  }
}

// Kingma & Ba 2015, algorithm 1, for N numbers.
template <int N> __device__ __forceinline__
void update(real* theta, const real* g, real* m, real* v, unsigned i, real clip, real rate, real correct, real beta1,
            real rest1, real beta2, real rest2, real epsilon) {
  const real tiny = real(1e-30);  // moments that fade end at 0, as on the CPU
  piece<N> t = load<N>(theta, i), mean = load<N>(m, i), square = load<N>(v, i);
  const piece<N> by = load<N>(g, i);
  #pragma unroll
  for (int l = 0; l < N; l++) {
    const real d = clip * by.v[l];
    const real first = FMA(beta1, mean.v[l], rest1 * d), second = FMA(beta2, square.v[l], rest2 * d * d);
    mean.v[l] = FABS(first) < tiny ? real(0) : first;
    square.v[l] = FABS(second) < tiny ? real(0) : second;
    t.v[l] -= rate * mean.v[l] / (SQRT(square.v[l] * correct) + epsilon);
  }
  store(theta, i, t);
  store(m, i, mean);
  store(v, i, square);
}

extern "C" __global__ void __launch_bounds__(256)
adam_scaled(real* theta, const real* g, real* m, real* v, const real* scales, const double* status, unsigned count,
            real beta1, real rest1, real beta2, real rest2, real epsilon, bool aligned) {
  if (status[FINITE] != 1.0) return;
  const real clip = real(status[CLIP]), rate = scales[0], correct = scales[1];
  const unsigned pieces = aligned ? count / LANES : 0;
  for (unsigned i = thread_number(); i < pieces; i += thread_count())
    update<LANES>(theta, g, m, v, i, clip, rate, correct, beta1, rest1, beta2, rest2, epsilon);
  for (unsigned i = LANES * pieces + thread_number(); i < count; i += thread_count())
    update<1>(theta, g, m, v, i, clip, rate, correct, beta1, rest1, beta2, rest2, epsilon);
}
