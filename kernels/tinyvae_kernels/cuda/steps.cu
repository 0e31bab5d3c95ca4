// The small work of a training step: which rows come next, the objective, the epoch's sums, the clock. One block each.

enum Clock { STEP, CURSOR, BATCH };

__device__ __forceinline__
void take_indices(const whole* order, const whole* clock, whole* out, whole count, int batch) {
  for (int i = threadIdx.x; i < batch; i += 256) out[i] = order[(clock[CURSOR] + i) % count];
}

__device__ __forceinline__
void take_rates(const real* plan, const whole* clock, real* out, int batches, int rates) {
  for (int i = threadIdx.x; i < rates; i += 256) out[i] = plan[clock[BATCH] % batches * rates + i];
}

// Two sums in float64, for means are taken of many; valid in thread 0.
__device__ __forceinline__ void both_sums(const real* a, const real* b, whole count, double& first, double& second) {
  first = second = 0;
  for (whole i = threadIdx.x; i < count; i += 256) {
    first += (double)a[i];
    second += (double)b[i];
  }
  first = block_sum(first);
  second = block_sum(second);
}

__device__ __forceinline__
void value(const real* reconstruction, const real* kl, const real* rates, real* out, whole count) {
  double first, second;
  both_sums(reconstruction, kl, count, first, second);
  if (threadIdx.x == 0) out[0] = rates[1] * real(second / (double)count) - real(first / (double)count);
}

__device__ __forceinline__
void gradient(const real* g, const real* rates, real* by_reconstruction, real* by_kl, unsigned count) {
  const real each = g[0] / real(count);
  for (unsigned i = me(); i < count; i += everyone()) {
    by_reconstruction[i] = -each;
    by_kl[i] = each * rates[1];
  }
}

__device__ __forceinline__
void add(const real* reconstruction, const real* kl, const real* loss, double* totals, const double* control,
         whole count) {
  if (control[0] != 1.0) {
    if (threadIdx.x == 0) totals[6] += 1.0;  // skipped
    return;
  }
  double first, second;
  both_sums(reconstruction, kl, count, first, second);
  if (threadIdx.x == 0) {
    totals[0] += (double)count;
    totals[1] += first;
    totals[2] += second;
    totals[3] += (double)count * (double)loss[0];
    totals[4] += control[2];
    totals[5] += 1.0;
  }
}

__device__ __forceinline__ void advance(whole* clock, int batch) {
  if (threadIdx.x == 0) {
    clock[STEP] += 1;
    clock[CURSOR] += batch;
    clock[BATCH] += 1;
  }
}

extern "C" __global__ void __launch_bounds__(256)
next_indices(const whole* order, const whole* clock, whole* out, whole count, int batch) {
  take_indices(order, clock, out, count, batch);
}

extern "C" __global__ void __launch_bounds__(256)
next_rates(const real* plan, const whole* clock, real* out, int batches, int rates) {
  take_rates(plan, clock, out, batches, rates);
}

extern "C" __global__ void __launch_bounds__(256)
objective(const real* reconstruction, const real* kl, const real* rates, real* out, whole count) {
  value(reconstruction, kl, rates, out, count);
}

extern "C" __global__ void __launch_bounds__(256)
objective_grad(const real* g, const real* rates, real* by_reconstruction, real* by_kl, unsigned count) {
  gradient(g, rates, by_reconstruction, by_kl, count);
}

extern "C" __global__ void __launch_bounds__(256)
accumulate(const real* reconstruction, const real* kl, const real* loss, double* totals, const double* control,
           whole count) {
  add(reconstruction, kl, loss, totals, control, count);
}

extern "C" __global__ void tick(whole* clock, int batch) { advance(clock, batch); }

// ---- neighbours in one launch, see launches.py ----

extern "C" __global__ void __launch_bounds__(256)
begin_step(const whole* order, const whole* clock, whole* out, whole count, int batch, const real* plan,
           real* rates_out, int batches, int rates) {
  take_indices(order, clock, out, count, batch);
  take_rates(plan, clock, rates_out, batches, rates);
}

extern "C" __global__ void __launch_bounds__(256)
objective_and_grad(const real* reconstruction, const real* kl, const real* rates, real* out, whole count,
                   const real* g, real* by_reconstruction, real* by_kl) {
  value(reconstruction, kl, rates, out, count);
  gradient(g, rates, by_reconstruction, by_kl, (unsigned)count);
}

extern "C" __global__ void __launch_bounds__(256)
end_step(const real* reconstruction, const real* kl, const real* loss, double* totals, const double* control,
         whole count, whole* clock, int batch) {
  add(reconstruction, kl, loss, totals, control, count);
  advance(clock, batch);
}
