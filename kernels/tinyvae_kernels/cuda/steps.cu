// The small work of a training step: which rows come next, the objective, the epoch's sums, the counters. One block each.
// The places of counters, rates, status and totals (STEP, KL_WEIGHT, ...) are defines, see state.py.

#include "runtime/common.cu"

__device__ __forceinline__
void take_indices(const whole* order, const whole* counters, whole* out, whole count, int batch) {
  for (int i = threadIdx.x; i < batch; i += 256) out[i] = order[(counters[CURSOR] + i) % count];
}

__device__ __forceinline__
void take_rates(const real* plan, const whole* counters, real* out, int batches, int rates) {
  for (int i = threadIdx.x; i < rates; i += 256) out[i] = plan[counters[BATCH] % batches * rates + i];
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
  if (threadIdx.x == 0) out[0] = rates[KL_WEIGHT] * real(second / (double)count) - real(first / (double)count);
}

__device__ __forceinline__
void gradient(const real* g, const real* rates, real* by_reconstruction, real* by_kl, unsigned count) {
  const real each = g[0] / real(count);
  for (unsigned i = thread_number(); i < count; i += thread_count()) {
    by_reconstruction[i] = -each;
    by_kl[i] = each * rates[KL_WEIGHT];
  }
}

__device__ __forceinline__
void add(const real* reconstruction, const real* kl, const real* loss, double* totals, const double* status,
         whole count) {
  if (status[FINITE] != 1.0) {
    if (threadIdx.x == 0) totals[SKIPPED] += 1.0;
    return;
  }
  double first, second;
  both_sums(reconstruction, kl, count, first, second);
  if (threadIdx.x == 0) {
    totals[DATA_COUNT] += (double)count;
    totals[RECONSTRUCTION] += first;
    totals[KL] += second;
    totals[OBJECTIVE] += (double)count * (double)loss[0];
    totals[NORMS] += status[NORM];
    totals[SOUND] += 1.0;
  }
}

__device__ __forceinline__ void advance(whole* counters, int batch) {
  if (threadIdx.x == 0) {
    counters[STEP] += 1;
    counters[CURSOR] += batch;
    counters[BATCH] += 1;
  }
}

extern "C" __global__ void __launch_bounds__(256)
next_indices(const whole* order, const whole* counters, whole* out, whole count, int batch) {
  take_indices(order, counters, out, count, batch);
}

extern "C" __global__ void __launch_bounds__(256)
next_rates(const real* plan, const whole* counters, real* out, int batches, int rates) {
  take_rates(plan, counters, out, batches, rates);
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
accumulate(const real* reconstruction, const real* kl, const real* loss, double* totals, const double* status,
           whole count) {
  add(reconstruction, kl, loss, totals, status, count);
}

extern "C" __global__ void tick(whole* counters, int batch) { advance(counters, batch); }

// ---- neighbours in one launch, see steps.py ----

extern "C" __global__ void __launch_bounds__(256)
begin_step(const whole* order, const whole* counters, whole* out, whole count, int batch, const real* plan,
           real* rates_out, int batches, int rates) {
  take_indices(order, counters, out, count, batch);
  take_rates(plan, counters, rates_out, batches, rates);
}

extern "C" __global__ void __launch_bounds__(256)
objective_and_grad(const real* reconstruction, const real* kl, const real* rates, real* out, whole count,
                   const real* g, real* by_reconstruction, real* by_kl) {
  value(reconstruction, kl, rates, out, count);
  gradient(g, rates, by_reconstruction, by_kl, (unsigned)count);
}

extern "C" __global__ void __launch_bounds__(256)
end_step(const real* reconstruction, const real* kl, const real* loss, double* totals, const double* status,
         whole count, whole* counters, int batch) {
  add(reconstruction, kl, loss, totals, status, count);
  advance(counters, batch);
}
