// Neighbours of a training step in one launch each, by the functions that they have in launches of their own.

#include "likelihoods.cu"
#include "optimizers.cu"
#include "posterior.cu"
#include "steps.cu"

// Does this block arrive here as the last of the grid? It then sees what thread 0 of every block has written before.
// `ticket` is 0 again when the last block has taken it.
__device__ __forceinline__ bool arrives_last(unsigned* ticket) {
  __shared__ bool last;
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicInc(ticket, gridDim.x - 1) == gridDim.x - 1;
    __threadfence();
  }
  __syncthreads();
  return last;
}

// ---- the batch: its indices, its rows, its rates ---------------------------------------------------------------------
// Each thread finds its rows in the order of the epoch itself, because no block may read what another writes; block 0
// writes the indices and the rates, which have other readers.

struct Next {
  const whole* order;
  unsigned start, count;
  __device__ __forceinline__ Next(const whole* order, const whole* counters, whole count)
      : order(order), start((unsigned)(counters[CURSOR] % count)), count((unsigned)count) {}
  __device__ __forceinline__ whole operator[](unsigned row) const { return order[(start + row) % count]; }
};

__device__ __forceinline__
void begin(const whole* order, const whole* counters, whole* index, whole count, unsigned rows, const real* plan,
           real* rates_out, int batches, int rates) {
  if (blockIdx.x != 0) return;
  take_indices(order, counters, index, count, (int)rows);
  take_rates(plan, counters, rates_out, batches, rates);
}

template <typename T> __device__ __forceinline__
void grey(const Next index, const T* stored, real* out, unsigned rows, unsigned width, real scale) {
  for (unsigned at = thread_number(); at < rows * width; at += thread_count())
    out[at] = real(stored[index[at / width] * width + at % width]) / scale;
}

template <typename T> __device__ __forceinline__
void binarise(const Next index, const T* stored, unsigned step, real* out, unsigned rows, unsigned width, real scale,
              unsigned seed, unsigned stream, unsigned site) {
  const unsigned numbers = rows * width;
  for (unsigned i = thread_number(); 4 * i < numbers; i += thread_count()) {
    unsigned word[4];
    philox(i, site, step, 0, seed, stream, word);
    #pragma unroll
    for (int k = 0; k < 4; k++) {
      const unsigned at = 4 * i + k;
      if (at < numbers) {
        const real level = real(stored[index[at / width] * width + at % width]) / scale;
        out[at] = real((float)(word[k] >> 8) * 5.9604644775390625e-8f) < level ? real(1) : real(0);  // 2^-24
      }
    }
  }
}

extern "C" __global__ void __launch_bounds__(256)
next_grey_bytes(const whole* order, const whole* counters, whole* index, whole count, const unsigned char* stored,
                real* out, unsigned rows, unsigned width, real scale, const real* plan, real* rates_out, int batches,
                int rates) {
  begin(order, counters, index, count, rows, plan, rates_out, batches, rates);
  grey(Next(order, counters, count), stored, out, rows, width, scale);
}

extern "C" __global__ void __launch_bounds__(256)
next_grey_floats(const whole* order, const whole* counters, whole* index, whole count, const float* stored, real* out,
                 unsigned rows, unsigned width, real scale, const real* plan, real* rates_out, int batches,
                 int rates) {
  begin(order, counters, index, count, rows, plan, rates_out, batches, rates);
  grey(Next(order, counters, count), stored, out, rows, width, scale);
}

extern "C" __global__ void __launch_bounds__(256)
next_binarise_bytes(const whole* order, const whole* counters, whole* index, whole count, const unsigned char* stored,
                    real* out, unsigned rows, unsigned width, real scale, unsigned seed, unsigned stream,
                    unsigned site, const real* plan, real* rates_out, int batches, int rates) {
  begin(order, counters, index, count, rows, plan, rates_out, batches, rates);
  binarise(Next(order, counters, count), stored, (unsigned)counters[STEP], out, rows, width, scale, seed, stream, site);
}

extern "C" __global__ void __launch_bounds__(256)
next_binarise_floats(const whole* order, const whole* counters, whole* index, whole count, const float* stored,
                     real* out, unsigned rows, unsigned width, real scale, unsigned seed, unsigned stream,
                     unsigned site, const real* plan, real* rates_out, int batches, int rates) {
  begin(order, counters, index, count, rows, plan, rates_out, batches, rates);
  binarise(Next(order, counters, count), stored, (unsigned)counters[STEP], out, rows, width, scale, seed, stream, site);
}

// ---- the bias of a last layer, and what reads its rows ---------------------------------------------------------------

// A warp adds the bias to the row of raw that it reads afterwards.
extern "C" __global__ void __launch_bounds__(256)
biased_sample_kl(const real* pre, const real* bias, const whole* counters, unsigned seed, unsigned stream,
                 unsigned site, real* raw, real* eps, real* z, real* kl, int samples, unsigned batch, int latent) {
  const unsigned b = blockIdx.x * 8 + threadIdx.x / 32;
  const whole row = (whole)2 * b * latent;
  if (b < batch)
    for (int j = threadIdx.x % 32; j < 2 * latent; j += 32) raw[row + j] = pre[row + j] + bias[j];
  __syncwarp();
  forward<true>({(unsigned)counters[STEP], seed, stream, site}, raw, eps, z, kl, samples, batch, latent);
}

// A row of the output has `each` pieces of N numbers.
template <int N> __device__ __forceinline__
void add_bias(const real* pre, const real* bias, real* output, whole row, int each) {
  for (int j = threadIdx.x; j < each; j += blockDim.x) {
    piece<N> p = load<N>(pre, row * each + j);
    const piece<N> b = load<N>(bias, j);
    #pragma unroll
    for (int l = 0; l < N; l++) p.v[l] += b.v[l];
    store(output, row * each + j, p);
  }
}

// A block adds the bias to the rows that it reads afterwards.
template <typename Law> __device__ __forceinline__
void biased(const real* pre, const real* bias, real* output, const real* x, real* sums, real* residual, unsigned rows,
            int width, unsigned count, bool pieces) {
  const unsigned row = blockIdx.x * blockDim.y + threadIdx.y;
  if (row < rows) {
    if (pieces) add_bias<LANES>(pre, bias, output, row, Law::EACH * width / LANES);
    else add_bias<1>(pre, bias, output, row, Law::EACH * width);
  }
  __syncthreads();
  log_prob<Law>(output, x, sums, residual, rows, width, count, pieces);
}

extern "C" __global__ void __launch_bounds__(256)
biased_bernoulli(const real* pre, const real* bias, real* logits, const real* x, real* sums, real* residual,
                 unsigned rows, int width, unsigned count, bool pieces) {
  biased<Bernoulli>(pre, bias, logits, x, sums, residual, rows, width, count, pieces);
}

extern "C" __global__ void __launch_bounds__(256)
biased_gaussian(const real* pre, const real* bias, real* raw, const real* x, real* sums, real* residual,
                unsigned rows, int width, unsigned count, bool pieces) {
  biased<Gaussian>(pre, bias, raw, x, sums, residual, rows, width, count, pieces);
}

// The gradient of the objective needs no sum, so all blocks share it; the last block makes the objective of the sums of
// all rows, each of which has a block. The bias may have been added before, with the product.
extern "C" __global__ void __launch_bounds__(256)
bernoulli_objective(const real* logits, const real* x, real* sums, real* residual, unsigned rows, int width,
                    unsigned count, bool pieces, const real* kl, const real* rates, real* loss, const real* g,
                    real* by_reconstruction, real* by_kl, unsigned* ticket) {
  gradient(g, rates, by_reconstruction, by_kl, rows);
  log_prob<Bernoulli>(logits, x, sums, residual, rows, width, count, pieces);
  if (arrives_last(ticket)) value(sums, kl, rates, loss, rows);
}

extern "C" __global__ void __launch_bounds__(256)
gaussian_objective(const real* raw, const real* x, real* sums, real* residual, unsigned rows, int width,
                   unsigned count, bool pieces, const real* kl, const real* rates, real* loss, const real* g,
                   real* by_reconstruction, real* by_kl, unsigned* ticket) {
  gradient(g, rates, by_reconstruction, by_kl, rows);
  log_prob<Gaussian>(raw, x, sums, residual, rows, width, count, pieces);
  if (arrives_last(ticket)) value(sums, kl, rates, loss, rows);
}

extern "C" __global__ void __launch_bounds__(256)
biased_bernoulli_objective(const real* pre, const real* bias, real* logits, const real* x, real* sums, real* residual,
                           unsigned rows, int width, unsigned count, bool pieces, const real* kl, const real* rates,
                           real* loss, const real* g, real* by_reconstruction, real* by_kl, unsigned* ticket) {
  gradient(g, rates, by_reconstruction, by_kl, rows);
  biased<Bernoulli>(pre, bias, logits, x, sums, residual, rows, width, count, pieces);
  if (arrives_last(ticket)) value(sums, kl, rates, loss, rows);
}

extern "C" __global__ void __launch_bounds__(256)
biased_gaussian_objective(const real* pre, const real* bias, real* raw, const real* x, real* sums, real* residual,
                          unsigned rows, int width, unsigned count, bool pieces, const real* kl, const real* rates,
                          real* loss, const real* g, real* by_reconstruction, real* by_kl, unsigned* ticket) {
  gradient(g, rates, by_reconstruction, by_kl, rows);
  biased<Gaussian>(pre, bias, raw, x, sums, residual, rows, width, count, pieces);
  if (arrives_last(ticket)) value(sums, kl, rates, loss, rows);
}

// ---- rows of gradients and the sums of their columns -----------------------------------------------------------------
// value(i, j), N numbers of row i, goes into `out` and is summed over `chunk` rows in the order of activations.cu: every
// eighth row, then these eight sums. A block has 8 columns of pieces, and computes 32 rows at once.

template <int N, typename Value> __device__ __forceinline__
void rows_and_sums(const Value& value, real* out, real* sums, whole rows, int each, int chunk) {
  __shared__ piece<N> tile[32][8];
  const int c = threadIdx.x % 8, r = threadIdx.x / 8, j = blockIdx.x * 8 + c;
  const whole first = (whole)blockIdx.y * chunk, last = first + chunk < rows ? first + chunk : rows;
  piece<N> sum = {};
  for (whole begin = first; begin < last; begin += 32) {
    const whole i = begin + r;
    if (i < last && j < each) store(out, i * each + j, tile[r][c] = value(i, j));
    __syncthreads();
    if (r < 8)
      for (int k = r; k < 32 && begin + k < last; k += 8) {
        #pragma unroll
        for (int l = 0; l < N; l++) sum.v[l] += tile[k][c].v[l];
      }
    __syncthreads();  // before the next rows overwrite the tile
  }
  if (r < 8) tile[r][c] = sum;
  __syncthreads();
  if (r == 0 && j < each) {
    for (int k = 1; k < 8; k++) {
      #pragma unroll
      for (int l = 0; l < N; l++) sum.v[l] += tile[k][c].v[l];
    }
    store(sums, (whole)blockIdx.y * each + j, sum);
  }
}

template <int N> struct ScaledRows {
  const real *g, *a;
  int each;
  __device__ __forceinline__ piece<N> operator()(whole i, int j) const {
    const real factor = g[i];
    piece<N> p = load<N>(a, i * each + j);
    #pragma unroll
    for (int l = 0; l < N; l++) p.v[l] *= factor;
    return p;
  }
};

extern "C" __global__ void __launch_bounds__(256)
scale_rows_and_sums(const real* g, const real* a, real* out, real* sums, whole rows, int width, int chunk,
                    bool pieces) {
  if (pieces) rows_and_sums<LANES>(ScaledRows<LANES>{g, a, width / LANES}, out, sums, rows, width / LANES, chunk);
  else rows_and_sums<1>(ScaledRows<1>{g, a, width}, out, sums, rows, width, chunk);
}

// This is the derivative by number j of a row of raw, whose first `latent` are mu and the others logvar.
struct BySample {
  const real *dz, *dkl, *raw, *eps;
  int samples;
  unsigned batch, latent;
  __device__ __forceinline__ piece<1> operator()(whole row, int j) const {
    const unsigned b = (unsigned)row, k = j % latent;
    const real number = raw[2 * b * latent + j];
    real by_z = 0, by_sigma = 0;
    for (int s = 0; s < samples; s++) {
      const unsigned there = (s * batch + b) * latent + k;
      const real d = dz[there];
      by_z += d;
      by_sigma = FMA(d, eps[there], by_sigma);
    }
    if (j < latent) return {FMA(dkl[b], number, by_z)};
    return {real(0.5) * FMA(by_sigma, EXP(real(0.5) * number), dkl[b] * EXPM1(number))};
  }
};

extern "C" __global__ void __launch_bounds__(256)
sample_kl_grad_and_sums(const real* dz, const real* dkl, const real* raw, const real* eps, real* out, int samples,
                        unsigned batch, unsigned latent, real* sums, int chunk) {
  rows_and_sums<1>(BySample{dz, dkl, raw, eps, samples, batch, latent}, out, sums, batch, 2 * latent, chunk);
}

// ---- the guard and the update ----------------------------------------------------------------------------------------

// Each block sums the squares of its chunk, and the last one decides, as in optimizers.cu. Only its thread 0 gets true.
__device__ __forceinline__
bool judge(const real* g, double* sums, whole count, bool aligned, const real* loss, double* status, double most,
           unsigned* ticket) {
  const whole begin = (whole)blockIdx.x * CHUNK, rest = count - begin;
  Squares s = {g + begin, 0};
  everywhere(s, rest < CHUNK ? rest : CHUNK, aligned, threadIdx.x, 256);
  const double sum = block_sum(s.sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
  if (!arrives_last(ticket)) return false;
  const double all = total(sums, gridDim.x);
  if (threadIdx.x != 0) return false;
  decide(all, loss, status, most);
  return true;
}

extern "C" __global__ void __launch_bounds__(256)
squares_and_verdict(const real* g, double* sums, whole count, bool aligned, const real* loss, double* status,
                    double most, unsigned* ticket) {
  judge(g, sums, count, aligned, loss, status, most, ticket);
}

// This also computes the scales that the Adam of update.cu reads.
extern "C" __global__ void __launch_bounds__(256)
squares_verdict_and_scales(const real* g, double* sums, whole count, bool aligned, const real* loss, double* status,
                           double most, unsigned* ticket, const real* rates, real* scales, double beta1,
                           double beta2) {
  if (!judge(g, sums, count, aligned, loss, status, most, ticket)) return;
  const double updates = status[UPDATES];
  scales[0] = real((double)rates[LEARNING_RATE] / -expm1(updates * log(beta1)));
  scales[1] = real(1 / -expm1(updates * log(beta2)));
}

// The end of a step needs the guard's verdict but not the update, so block 0 does it while the others update.
__device__ __forceinline__
void end(const real* reconstruction, const real* kl, const real* loss, double* totals, const double* status,
         whole count, whole* counters, int batch) {
  add(reconstruction, kl, loss, totals, status, count);
  advance(counters, batch);
}

__device__ __forceinline__ void all_but_one(const Adam& step, unsigned count, bool aligned) {
  everywhere(step, count, aligned, thread_number() - 256, thread_count() - 256);
}

extern "C" __global__ void __launch_bounds__(256)
adam_and_end(real* theta, const real* g, real* m, real* v, const real* rates, const double* status, unsigned count,
             double beta1, double beta2, double epsilon, bool aligned, const real* reconstruction, const real* kl,
             const real* loss, double* totals, whole data, whole* counters, int batch) {
  if (blockIdx.x == 0) return end(reconstruction, kl, loss, totals, status, data, counters, batch);
  if (status[FINITE] != 1.0) return;
  const double updates = status[UPDATES];
  all_but_one({theta, m, v, g, real(status[CLIP]), real((double)rates[LEARNING_RATE] / -expm1(updates * log(beta1))),
               real(1 / -expm1(updates * log(beta2))), real(beta1), real(1 - beta1), real(beta2), real(1 - beta2),
               real(epsilon)}, count, aligned);
}

// This reads the scales of update.cu.
extern "C" __global__ void __launch_bounds__(256)
adam_scaled_and_end(real* theta, const real* g, real* m, real* v, const real* scales, const double* status,
                    unsigned count, real beta1, real rest1, real beta2, real rest2, real epsilon, bool aligned,
                    const real* reconstruction, const real* kl, const real* loss, double* totals, whole data,
                    whole* counters, int batch) {
  if (blockIdx.x == 0) return end(reconstruction, kl, loss, totals, status, data, counters, batch);
  if (status[FINITE] != 1.0) return;
  all_but_one({theta, m, v, g, real(status[CLIP]), scales[0], scales[1], beta1, rest1, beta2, rest2, epsilon}, count,
              aligned);
}
