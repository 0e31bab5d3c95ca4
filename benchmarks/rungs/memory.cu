// Noise, pixels and the sampled posterior by pieces of 16 bytes: a kernel that only moves numbers is as fast as memory
// if every warp asks for long stretches at a time.

#include "runtime/common.cu"
#include "runtime/philox.cu"

// Four numbers become one piece of `out` from 4 i on, or in float64 two.
__device__ __forceinline__ void store_four(real* out, unsigned i, const real (&number)[4]) {
  #pragma unroll
  for (int k = 0; k < 4; k += LANES) {
    piece<LANES> p;
    #pragma unroll
    for (int l = 0; l < LANES; l++) p.v[l] = number[k + l];
    store(out, (4 * i + k) / LANES, p);
  }
}

// A thread has a counter of Philox, which gives four words.
extern "C" __global__ void __launch_bounds__(256)
normal_fours(const whole* counters, real* out, unsigned count, unsigned seed, unsigned stream, unsigned site,
             bool aligned) {
  const unsigned step = (unsigned)counters[STEP];
  for (unsigned i = thread_number(); 4 * i < count; i += thread_count()) {
    unsigned word[4];
    real number[4];
    philox(i, site, step, 0, seed, stream, word);
    box_muller(word[0], word[1], number[0], number[1]);
    box_muller(word[2], word[3], number[2], number[3]);
    if (aligned && 4 * i + 4 <= count) store_four(out, i, number);
    else {
      #pragma unroll
      for (int k = 0; k < 4; k++)
        if (4 * i + k < count) out[4 * i + k] = number[k];
    }
  }
}

// ---- pixels ----
// Number i of a batch is pixel i % width of the stored row index[i / width]. Where rows consist of pieces, one division
// finds the row of a piece. A thread reads as many bytes as a store of 16 bytes takes numbers, so that a warp reads and
// writes one stretch each: if a thread read 16 bytes, the pieces of each of its four stores would lie 64 bytes apart.

template <typename T, int N> struct alignas(N * sizeof(T)) few { T v[N]; };

// Piece i of the batch is stored here, counted in pieces, of which a row has `each`.
__device__ __forceinline__ whole place(const whole* index, unsigned i, unsigned each) {
  const unsigned b = i / each;
  return index[b] * each + (i - b * each);
}

template <int N, typename T> __device__ __forceinline__ few<T, N> pixels(const T* stored, whole i) {
  return reinterpret_cast<const few<T, N>*>(stored)[i];
}

// A word of Philox decides that a pixel is 1, which has the probability of its grey value.
__device__ __forceinline__ real binary(unsigned word, real grey) {
  return real((float)(word >> 8) * 5.9604644775390625e-8f) < grey ? real(1) : real(0);  // 2^-24
}

template <typename T> __device__ __forceinline__
void binarise(const T* stored, const whole* index, const whole* counters, real* out, unsigned rows, unsigned width,
              real scale, unsigned seed, unsigned stream, unsigned site, bool pieces) {
  const unsigned step = (unsigned)counters[STEP], count = rows * width;
  for (unsigned i = thread_number(); 4 * i < count; i += thread_count()) {
    unsigned word[4];
    if (pieces) {
      const few<T, 4> pixel = pixels<4>(stored, place(index, i, width / 4));  // it arrives while Philox computes
      real drawn[4];
      philox(i, site, step, 0, seed, stream, word);
      #pragma unroll
      for (int k = 0; k < 4; k++) drawn[k] = binary(word[k], real(pixel.v[k]) / scale);
      store_four(out, i, drawn);
    } else {
      philox(i, site, step, 0, seed, stream, word);
      #pragma unroll
      for (int k = 0; k < 4; k++)
        if (4 * i + k < count)
          out[4 * i + k] = binary(word[k], real(stored[place(index, 4 * i + k, width)]) / scale);
    }
  }
}

// A thread asks for AHEAD pieces before it waits for the first, because each is few bytes and waits for `index` first.
// `count` and `each` are numbers of pieces.
const int AHEAD = 2;

template <int N, typename T> __device__ __forceinline__
void grey(const T* stored, const whole* index, real* out, unsigned count, unsigned each, real scale) {
  const unsigned step = thread_count();
  #pragma unroll 1
  for (unsigned i = thread_number(); i < count; i += AHEAD * step) {
    whole from[AHEAD];
    few<T, N> pixel[AHEAD];
    #pragma unroll
    for (int k = 0; k < AHEAD; k++) from[k] = i + k * step < count ? place(index, i + k * step, each) : 0;
    #pragma unroll
    for (int k = 0; k < AHEAD; k++) pixel[k] = pixels<N>(stored, from[k]);
    #pragma unroll
    for (int k = 0; k < AHEAD; k++)
      if (i + k * step < count) {
        piece<N> p;
        #pragma unroll
        for (int l = 0; l < N; l++) p.v[l] = real(pixel[k].v[l]) / scale;
        store(out, i + k * step, p);
      }
  }
}

template <typename T> __device__ __forceinline__
void grey(const T* stored, const whole* index, real* out, unsigned rows, unsigned width, real scale, bool pieces) {
  if (pieces) grey<LANES>(stored, index, out, rows * (width / LANES), width / LANES, scale);
  else grey<1>(stored, index, out, rows * width, width, scale);
}

extern "C" __global__ void __launch_bounds__(256)
binarise_bytes(const unsigned char* stored, const whole* index, const whole* counters, real* out, unsigned rows,
               unsigned width, real scale, unsigned seed, unsigned stream, unsigned site, bool pieces) {
  binarise(stored, index, counters, out, rows, width, scale, seed, stream, site, pieces);
}

extern "C" __global__ void __launch_bounds__(256)
binarise_floats(const float* stored, const whole* index, const whole* counters, real* out, unsigned rows,
                unsigned width, real scale, unsigned seed, unsigned stream, unsigned site, bool pieces) {
  binarise(stored, index, counters, out, rows, width, scale, seed, stream, site, pieces);
}

extern "C" __global__ void __launch_bounds__(256)
grey_bytes(const unsigned char* stored, const whole* index, real* out, unsigned rows, unsigned width, real scale,
           bool pieces) {
  grey(stored, index, out, rows, width, scale, pieces);
}

extern "C" __global__ void __launch_bounds__(256)
grey_floats(const float* stored, const whole* index, real* out, unsigned rows, unsigned width, real scale,
            bool pieces) {
  grey(stored, index, out, rows, width, scale, pieces);
}

// ---- the sampled posterior and its KL ----
// A row has as many lanes of a warp as it has pieces of N numbers, but at most 32 / N, and then it takes several turns.
// A warp has as many rows as fit: by the number of its instructions this kernel computes about as long as memory takes,
// and where a row has a warp, 12 of 32 lanes do nothing for a latent of 20. Here 2 do nothing.
//
// KL has the bits of posterior.cu, where a row has a warp: there a lane sums every 32nd number, and then the lanes
// are added in halves. Here the same 32 sums are in N registers of 32 / N lanes, so first the lanes are added in
// halves, and then the registers. Lanes that a small latent does not need would add zeros.

// exp(x) - 1 - x, by its series x^2/2 (1 + x/3 (1 + x/4 (1 + ...))) where the difference would cancel
__device__ __forceinline__ real exp_remainder(real x) {
  real series = 1;
  #pragma unroll
  for (int k = SINGLE ? 11 : 18; k > 2; k--) series = FMA(series, x * (real(1) / k), real(1));
  return FABS(x) < 1 ? real(0.5) * x * x * series : EXPM1(x) - (x < 1000 ? x : real(0));  // not infinity - infinity
}

// A launch that draws its own noise finds it here.
struct Address { unsigned step, seed, stream, site; };

// Piece i of a draw. Four of a counter's words give four numbers, and a pair gives two, of which N = 1 takes one.
template <int N> __device__ __forceinline__ piece<N> drawn(unsigned i, const Address& address) {
  piece<N> p;
  unsigned word[4];
  philox(N * i / 4, address.site, address.step, 0, address.seed, address.stream, word);
  #pragma unroll
  for (int l = 0; l < N; l += 2) {
    const unsigned at = N * i + l;
    real cosine, sine;
    box_muller(at & 2 ? word[2] : word[0], at & 2 ? word[3] : word[1], cosine, sine);
    p.v[l] = N == 1 && at & 1 ? sine : cosine;
    if constexpr (N > 1) p.v[l + 1] = sine;
  }
  return p;
}

template <bool DRAWN, int N, typename Eps> __device__ __forceinline__
void sampled(const Address& address, const real* raw, Eps* eps, real* z, real* kl, int samples, unsigned batch,
             unsigned each, unsigned lanes) {  // a row of z has `each` pieces of N, and `lanes` lanes
  const unsigned mine = threadIdx.x / lanes, lane = threadIdx.x - mine * lanes, rows = 32 / lanes;
  const unsigned b = (blockIdx.x * blockDim.y + threadIdx.y) * rows + mine;
  if (mine == rows || b >= batch) return;  // the lanes of a row leave together, and no shuffle waits for them
  const unsigned step = batch * each;  // a sample begins so many pieces after the one before
  piece<N> sum = {};
  // All lanes take the same turns: where a warp parts, keeping track of it takes registers, and on some cards memory.
  for (unsigned begin = 0; begin < each; begin += lanes) {
    const unsigned j = begin + lane, at = b * each + j;
    const bool inside = j < each;
    piece<N> mu = {}, logvar = {}, e = {}, sigma;
    if (inside) {
      mu = load<N>(raw, (whole)2 * b * each + j);
      logvar = load<N>(raw, ((whole)2 * b + 1) * each + j);
      if (!DRAWN && samples) e = load<N>(eps, at);  // it arrives while the thread computes, as the next sample's does
    }
    #pragma unroll
    for (int l = 0; l < N; l++) {
      sigma.v[l] = EXP(real(0.5) * logvar.v[l]);
      sum.v[l] += FMA(mu.v[l], mu.v[l], exp_remainder(logvar.v[l]));  // AEVB appendix B: no term is negative
    }
    #pragma unroll 1
    for (int s = 0; s < samples; s++) {  // AEVB eq. (4): z = mu + sigma eps
      const unsigned now = at + s * step;
      if (inside) {
        if constexpr (DRAWN) store(eps, now, e = drawn<N>(now, address));
        piece<N> sample;
        #pragma unroll
        for (int l = 0; l < N; l++) sample.v[l] = FMA(sigma.v[l], e.v[l], mu.v[l]);
        if (!DRAWN && s + 1 < samples) e = load<N>(eps, now + step);
        store(z, now, sample);
      }
    }
  }
  #pragma unroll
  for (int d = 16 / N; d; d /= 2) {
    #pragma unroll
    for (int l = 0; l < N; l++) {
      const real other = __shfl_down_sync(ALL, sum.v[l], d);
      if (lane + d < lanes) sum.v[l] += other;
    }
  }
  #pragma unroll
  for (int d = N / 2; d; d /= 2) {
    #pragma unroll
    for (int l = 0; l < d; l++) sum.v[l] += sum.v[l + d];
  }
  if (lane == 0) kl[b] = real(0.5) * sum.v[0];
}

extern "C" __global__ void __launch_bounds__(256)
sample_kl_pieces(const real* raw, const real* eps, real* z, real* kl, int samples, unsigned batch, unsigned latent,
                 unsigned lanes, bool pieces) {
  if (pieces) sampled<false, LANES>({}, raw, eps, z, kl, samples, batch, latent / LANES, lanes);
  else sampled<false, 1>({}, raw, eps, z, kl, samples, batch, latent, lanes);
}

// This draws the numbers of `normal` itself, and leaves them in eps for the gradient.
extern "C" __global__ void __launch_bounds__(256)
drawn_sample_kl_pieces(const whole* counters, unsigned seed, unsigned stream, unsigned site, const real* raw, real* eps,
                       real* z, real* kl, int samples, unsigned batch, unsigned latent, unsigned lanes,
                       bool pieces) {
  const Address address = {(unsigned)counters[STEP], seed, stream, site};
  if (pieces) sampled<true, LANES>(address, raw, eps, z, kl, samples, batch, latent / LANES, lanes);
  else sampled<true, 1>(address, raw, eps, z, kl, samples, batch, latent, lanes);
}
