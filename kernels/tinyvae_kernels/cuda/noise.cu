// Noise and drawn pixels. A thread has a counter of Philox, which gives four words.

#include "runtime/common.cu"
#include "runtime/philox.cu"

extern "C" __global__ void __launch_bounds__(256)
normal(const whole* counters, real* out, unsigned count, unsigned seed, unsigned stream, unsigned site) {
  const unsigned step = (unsigned)counters[STEP];
  for (unsigned i = thread_number(); 4 * i < count; i += thread_count()) {
    unsigned word[4];
    philox(i, site, step, 0, seed, stream, word);
    #pragma unroll
    for (int k = 0; k < 4; k += 2) {
      real cosine, sine;
      box_muller(word[k], word[k + 1], cosine, sine);
      if (4 * i + k < count) out[4 * i + k] = cosine;
      if (4 * i + k + 1 < count) out[4 * i + k + 1] = sine;
    }
  }
}

// Pixel (b, j) is number b * width + j of the draw; 1 with the probability of its grey value.
template <typename T> __device__ __forceinline__
void binarise(const T* stored, const whole* index, const whole* counters, real* out, unsigned rows, unsigned width,
              real scale, unsigned seed, unsigned stream, unsigned site) {
  const unsigned step = (unsigned)counters[STEP];
  const unsigned count = rows * width;
  for (unsigned i = thread_number(); 4 * i < count; i += thread_count()) {
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
  for (unsigned at = thread_number(); at < rows * width; at += thread_count())
    out[at] = real(stored[index[at / width] * width + at % width]) / scale;
}

extern "C" __global__ void __launch_bounds__(256)
binarise_bytes(const unsigned char* stored, const whole* index, const whole* counters, real* out, unsigned rows,
               unsigned width, real scale, unsigned seed, unsigned stream, unsigned site) {
  binarise(stored, index, counters, out, rows, width, scale, seed, stream, site);
}

extern "C" __global__ void __launch_bounds__(256)
binarise_floats(const float* stored, const whole* index, const whole* counters, real* out, unsigned rows,
                unsigned width, real scale, unsigned seed, unsigned stream, unsigned site) {
  binarise(stored, index, counters, out, rows, width, scale, seed, stream, site);
}

extern "C" __global__ void __launch_bounds__(256)
grey_bytes(const unsigned char* stored, const whole* index, real* out, unsigned rows, unsigned width, real scale) {
  grey(stored, index, out, rows, width, scale);
}

extern "C" __global__ void __launch_bounds__(256)
grey_floats(const float* stored, const whole* index, real* out, unsigned rows, unsigned width, real scale) {
  grey(stored, index, out, rows, width, scale);
}
