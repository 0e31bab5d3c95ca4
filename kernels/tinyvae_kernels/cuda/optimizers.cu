// One step of all parameters: the guard over loss and gradient, and the updates, each in one pass over flat vectors.
// control: is the step finite, the factor that clips the gradient, its norm, the number of updates.

enum Place { FINITE, CLIP, NORM, UPDATES };
const int CHUNK = 4096;  // numbers whose squares a block sums

extern "C" __global__ void __launch_bounds__(256)
squares(const real* g, double* sums, whole count) {
  const whole first = (whole)blockIdx.x * CHUNK, last = first + CHUNK < count ? first + CHUNK : count;
  double sum = 0;
  for (whole i = first + threadIdx.x; i < last; i += 256) sum += (double)g[i] * (double)g[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// One block: the norm, whether it and the loss are finite, the clip factor; counts sound steps.
extern "C" __global__ void __launch_bounds__(256)
verdict(const real* loss, const double* sums, double* control, whole count, double most) {
  double sum = 0;
  for (whole i = threadIdx.x; i < count; i += 256) sum += sums[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) {
    const double norm = sqrt(sum), value = (double)loss[0];
    const bool sound = norm - norm == 0 && value - value == 0;
    control[NORM] = norm;
    control[FINITE] = sound ? 1.0 : 0.0;
    control[CLIP] = norm <= most ? 1.0 : most / norm;
    if (sound) control[UPDATES] += 1.0;
  }
}

extern "C" __global__ void __launch_bounds__(256)
add_scaled(real* g, const real* theta, real factor, unsigned count) {
  for (unsigned i = me(); i < count; i += everyone()) g[i] = FMA(factor, theta[i], g[i]);
}

struct Adam {
  real clip, rate, correct, beta1, rest1, beta2, rest2, epsilon;
  __device__ __forceinline__ void step(real& theta, real g, real& m, real& v) const {
    const real tiny = real(1e-30);  // moments that fade end at 0, as on the CPU
    const real d = clip * g;
    m = FMA(beta1, m, rest1 * d);
    v = FMA(beta2, v, rest2 * d * d);
    m = FABS(m) < tiny ? real(0) : m;
    v = v < tiny ? real(0) : v;
    theta -= rate * m / (SQRT(v * correct) + epsilon);
  }
};

// Kingma & Ba 2015, algorithm 1; `aligned`: the vectors begin where pieces of 16 bytes may.
extern "C" __global__ void __launch_bounds__(256)
adam(real* theta, const real* g, real* m, real* v, const real* rates, const double* control, unsigned count,
     double beta1, double beta2, double epsilon, bool aligned) {
  if (control[FINITE] != 1.0) return;
  // Dividing by 1 - beta^t undoes the bias of moments that start at 0. 1 - beta in float32 has only five digits; beta^t
  // is exp(t log beta), for pow takes more registers than all the rest.
  const double updates = control[UPDATES];
  const Adam a = {real(control[CLIP]), real((double)rates[0] / -expm1(updates * log(beta1))),
                  real(1 / -expm1(updates * log(beta2))), real(beta1), real(1 - beta1), real(beta2), real(1 - beta2),
                  real(epsilon)};
  const unsigned pieces = aligned ? count / LANES : 0;
  for (unsigned i = me(); i < pieces; i += everyone()) {
    piece t = reinterpret_cast<piece*>(theta)[i], mean = reinterpret_cast<piece*>(m)[i];
    piece square = reinterpret_cast<piece*>(v)[i];
    const piece d = reinterpret_cast<const piece*>(g)[i];
    #pragma unroll
    for (int l = 0; l < LANES; l++) a.step(t.v[l], d.v[l], mean.v[l], square.v[l]);
    reinterpret_cast<piece*>(theta)[i] = t;
    reinterpret_cast<piece*>(m)[i] = mean;
    reinterpret_cast<piece*>(v)[i] = square;
  }
  for (unsigned i = LANES * pieces + me(); i < count; i += everyone()) a.step(theta[i], g[i], m[i], v[i]);
}

extern "C" __global__ void __launch_bounds__(256)
adagrad(real* theta, const real* g, real* total, const real* rates, const double* control, unsigned count,
        double epsilon) {
  if (control[FINITE] != 1.0) return;
  const real clip = real(control[CLIP]), rate = rates[0], least = real(epsilon);
  for (unsigned i = me(); i < count; i += everyone()) {
    const real d = clip * g[i], square = FMA(d, d, total[i]);
    total[i] = square;
    if (d != 0) theta[i] -= rate * d / (SQRT(square) + least);
  }
}

extern "C" __global__ void __launch_bounds__(256)
sgd(real* theta, const real* g, real* velocity, const real* rates, const double* control, unsigned count,
    double momentum) {
  if (control[FINITE] != 1.0) return;
  const real clip = real(control[CLIP]), rate = rates[0], kept = real(momentum);
  for (unsigned i = me(); i < count; i += everyone()) {
    const real now = FMA(kept, velocity[i], clip * g[i]);
    velocity[i] = now;
    theta[i] -= rate * now;
  }
}
