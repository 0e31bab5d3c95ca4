// One step of all parameters: the guard over loss and gradient, and the updates, each in one pass over flat vectors.
// The places of status and rates (FINITE, LEARNING_RATE, ...) are defines, see state.py.

#include "runtime/common.cu"

const int CHUNK = 4096;  // numbers whose squares a block sums

// step.at<N>(i) for the N numbers of each place i, by threads `first`, `first + threads`, ...: pieces of 16 bytes where
// `aligned` says that all vectors begin on one, and the few numbers behind the last piece one by one.
template <typename Step> __device__ __forceinline__
void everywhere(Step& step, unsigned count, bool aligned, unsigned first, unsigned threads) {
  const unsigned pieces = aligned ? count / LANES : 0;
  for (unsigned i = first; i < pieces; i += threads) step.template at<LANES>(i);
  for (unsigned i = LANES * pieces + first; i < count; i += threads) step.template at<1>(i);
}

struct Squares {
  const real* g;
  double sum;
  template <int N> __device__ __forceinline__ void at(unsigned i) {
    const piece<N> d = load<N>(g, i);
    #pragma unroll
    for (int l = 0; l < N; l++) sum += (double)d.v[l] * (double)d.v[l];
  }
};

extern "C" __global__ void __launch_bounds__(256)
squares(const real* g, double* sums, whole count, bool aligned) {
  const whole begin = (whole)blockIdx.x * CHUNK, rest = count - begin;
  Squares s = {g + begin, 0};
  everywhere(s, rest < CHUNK ? rest : CHUNK, aligned, threadIdx.x, 256);
  const double sum = block_sum(s.sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// Of a sum of squares: the norm, whether it and the loss are finite, the clip factor; counts sound steps. One thread.
__device__ __forceinline__ void decide(double sum, const real* loss, double* status, double most) {
  const double norm = sqrt(sum), value = (double)loss[0];
  const bool sound = norm - norm == 0 && value - value == 0;
  status[NORM] = norm;
  status[FINITE] = sound ? 1.0 : 0.0;
  status[CLIP] = norm <= most ? 1.0 : most / norm;
  if (sound) status[UPDATES] += 1.0;
}

// The sum of numbers, in thread 0 of a block.
__device__ __forceinline__ double total(const double* sums, whole count) {
  double sum = 0;
  for (whole i = threadIdx.x; i < count; i += 256) sum += sums[i];
  return block_sum(sum);
}

extern "C" __global__ void __launch_bounds__(256)
verdict(const real* loss, const double* sums, double* status, whole count, double most) {
  const double sum = total(sums, count);
  if (threadIdx.x == 0) decide(sum, loss, status, most);
}

struct AddScaled {
  real* g;
  const real* theta;
  real factor;
  template <int N> __device__ __forceinline__ void at(unsigned i) const {
    piece<N> sum = load<N>(g, i);
    const piece<N> t = load<N>(theta, i);
    #pragma unroll
    for (int l = 0; l < N; l++) sum.v[l] = FMA(factor, t.v[l], sum.v[l]);
    store(g, i, sum);
  }
};

extern "C" __global__ void __launch_bounds__(256)
add_scaled(real* g, const real* theta, real factor, unsigned count, bool aligned) {
  const AddScaled step = {g, theta, factor};
  everywhere(step, count, aligned, thread_number(), thread_count());
}

// Kingma & Ba 2015, algorithm 1.
struct Adam {
  real *theta, *m, *v;
  const real* g;
  real clip, rate, correct, beta1, rest1, beta2, rest2, epsilon;
  template <int N> __device__ __forceinline__ void at(unsigned i) const {
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
};

extern "C" __global__ void __launch_bounds__(256)
adam(real* theta, const real* g, real* m, real* v, const real* rates, const double* status, unsigned count,
     double beta1, double beta2, double epsilon, bool aligned) {
  if (status[FINITE] != 1.0) return;
  // Dividing by 1 - beta^t undoes the bias of moments that start at 0. 1 - beta in float32 has only five digits; beta^t
  // is exp(t log beta), for pow takes more registers than all the rest.
  const double updates = status[UPDATES];
  const Adam step = {theta, m, v, g, real(status[CLIP]), real((double)rates[LEARNING_RATE] / -expm1(updates * log(beta1))),
                     real(1 / -expm1(updates * log(beta2))), real(beta1), real(1 - beta1), real(beta2),
                     real(1 - beta2), real(epsilon)};
  everywhere(step, count, aligned, thread_number(), thread_count());
}

struct Adagrad {
  real *theta, *total;
  const real* g;
  real clip, rate, least;
  template <int N> __device__ __forceinline__ void at(unsigned i) const {
    piece<N> t = load<N>(theta, i), square = load<N>(total, i);
    const piece<N> by = load<N>(g, i);
    #pragma unroll
    for (int l = 0; l < N; l++) {
      const real d = clip * by.v[l];
      square.v[l] = FMA(d, d, square.v[l]);
      if (d != 0) t.v[l] -= rate * d / (SQRT(square.v[l]) + least);
    }
    store(theta, i, t);
    store(total, i, square);
  }
};

extern "C" __global__ void __launch_bounds__(256)
adagrad(real* theta, const real* g, real* total, const real* rates, const double* status, unsigned count,
        double epsilon, bool aligned) {
  if (status[FINITE] != 1.0) return;
  const Adagrad step = {theta, total, g, real(status[CLIP]), rates[LEARNING_RATE], real(epsilon)};
  everywhere(step, count, aligned, thread_number(), thread_count());
}

struct Momentum {
  real *theta, *velocity;
  const real* g;
  real clip, rate, kept;
  template <int N> __device__ __forceinline__ void at(unsigned i) const {
    piece<N> t = load<N>(theta, i), now = load<N>(velocity, i);
    const piece<N> by = load<N>(g, i);
    #pragma unroll
    for (int l = 0; l < N; l++) {
      now.v[l] = FMA(kept, now.v[l], clip * by.v[l]);
      t.v[l] -= rate * now.v[l];
    }
    store(theta, i, t);
    store(velocity, i, now);
  }
};

extern "C" __global__ void __launch_bounds__(256)
sgd(real* theta, const real* g, real* velocity, const real* rates, const double* status, unsigned count,
    double momentum, bool aligned) {
  if (status[FINITE] != 1.0) return;
  const Momentum step = {theta, velocity, g, real(status[CLIP]), rates[LEARNING_RATE], real(momentum)};
  everywhere(step, count, aligned, thread_number(), thread_count());
}
