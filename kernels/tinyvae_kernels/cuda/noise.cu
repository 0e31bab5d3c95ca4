// Counter-based noise (Philox 4x32-10): the integers of tinyvae/noise.py. A thread has a counter, which gives four words.

__device__ __forceinline__ void philox(unsigned index, unsigned site, unsigned step, unsigned attempt, unsigned seed,
                                       unsigned stream, unsigned (&word)[4]) {
  unsigned c0 = index, c1 = site, c2 = step, c3 = attempt, k0 = seed, k1 = stream;
  #pragma unroll
  for (int round = 0; round < 10; round++) {
    const unsigned h0 = __umulhi(0xD2511F53u, c0), l0 = 0xD2511F53u * c0;
    const unsigned h1 = __umulhi(0xCD9E8D57u, c2), l1 = 0xCD9E8D57u * c2;
    c0 = h1 ^ c1 ^ k0; c1 = l1; c2 = h0 ^ c3 ^ k1; c3 = l0;
    k0 += 0x9E3779B9u; k1 += 0xBB67AE85u;
  }
  word[0] = c0; word[1] = c1; word[2] = c2; word[3] = c3;
}

// Box and Muller's transform of pairs of words: sqrt(-2 log u) (cos 2 pi v, sin 2 pi v).
extern "C" __global__ void __launch_bounds__(256)
normal(const whole* clock, real* out, unsigned count, unsigned seed, unsigned stream, unsigned site) {
  const unsigned step = (unsigned)clock[0];
  for (unsigned i = me(); 4 * i < count; i += everyone()) {
    unsigned word[4];
    philox(i, site, step, 0, seed, stream, word);
    #pragma unroll
    for (int k = 0; k < 4; k += 2) {
      const real u = FMA(real(word[k]), real(2.3283064365386963e-10), real(1.1641532182693481e-10));  // 2^-32, 2^-33
      const real radius = SQRT(-2 * LOG(u));
      real sine, cosine;
      SINCOSPI(2 * (real(word[k + 1]) * real(2.3283064365386963e-10)), &sine, &cosine);
      if (4 * i + k < count) out[4 * i + k] = radius * cosine;
      if (4 * i + k + 1 < count) out[4 * i + k + 1] = radius * sine;
    }
  }
}

// Pixel (b, j) is number b * width + j of the draw; 1 with the probability of its grey value.
template <typename T> __device__ __forceinline__
void binarise(const T* stored, const whole* index, const whole* clock, real* out, unsigned rows, unsigned width,
              real scale, unsigned seed, unsigned stream, unsigned site) {
  const unsigned step = (unsigned)clock[0];
  const unsigned count = rows * width;
  for (unsigned i = me(); 4 * i < count; i += everyone()) {
    unsigned word[4];
    philox(i, site, step, 0, seed, stream, word);
    #pragma unroll
    for (int k = 0; k < 4; k++) {
      const unsigned at = 4 * i + k;
      if (at < count) {
        const real grey = real(stored[index[at / width] * width + at % width]) / scale;
        out[at] = real((float)(word[k] >> 8) * 5.9604644775390625e-8f) < grey ? real(1) : real(0);  // 2^-24
      }
    }
  }
}

template <typename T> __device__ __forceinline__
void grey(const T* stored, const whole* index, real* out, unsigned rows, unsigned width, real scale) {
  for (unsigned at = me(); at < rows * width; at += everyone())
    out[at] = real(stored[index[at / width] * width + at % width]) / scale;
}

extern "C" __global__ void __launch_bounds__(256)
binarise_bytes(const unsigned char* stored, const whole* index, const whole* clock, real* out, unsigned rows,
               unsigned width, real scale, unsigned seed, unsigned stream, unsigned site) {
  binarise(stored, index, clock, out, rows, width, scale, seed, stream, site);
}

extern "C" __global__ void __launch_bounds__(256)
binarise_floats(const float* stored, const whole* index, const whole* clock, real* out, unsigned rows,
                unsigned width, real scale, unsigned seed, unsigned stream, unsigned site) {
  binarise(stored, index, clock, out, rows, width, scale, seed, stream, site);
}

extern "C" __global__ void __launch_bounds__(256)
grey_bytes(const unsigned char* stored, const whole* index, real* out, unsigned rows, unsigned width, real scale) {
  grey(stored, index, out, rows, width, scale);
}

extern "C" __global__ void __launch_bounds__(256)
grey_floats(const float* stored, const whole* index, real* out, unsigned rows, unsigned width, real scale) {
  grey(stored, index, out, rows, width, scale);
}
