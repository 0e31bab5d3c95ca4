// Noise and drawn pixels. A thread has a counter of Philox, which gives four words; of a draw by rejection it has one
// number and its counters.

#include "runtime/common.cu"
#include "runtime/philox.cu"

const unsigned ATTEMPTS = 64;  // of a draw by rejection

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

// The uniform number in (0, 1) of a word.
__device__ __forceinline__ double open_unit(unsigned word) {
  return ((double)word + 0.5) * 2.3283064365386963e-10;  // 2^-32
}

// log G, G ~ Gamma(a, 1), by rejection (Marsaglia and Tsang 2000): with d = a - 1/3, c = 1 / sqrt(9 d), x ~ N(0, 1) and
// v = (1 + c x)^3, the number d v is a draw if log u < x^2/2 + d - d v + d log v. For a < 1, Gamma(a) = Gamma(a + 1)
// u^(1/a). A thread has a number, and each of its attempts a counter, whose words give x (two), the u of the test and,
// at the first attempt, the u of the power. The test is in float64, so that every device accepts the same attempt. What
// is refused at every attempt is no shape, and its draw is NaN.
extern "C" __global__ void __launch_bounds__(256)
log_gamma(const real* shape, const whole* counters, real* out, unsigned count, unsigned period, unsigned seed,
          unsigned stream, unsigned site) {
  const unsigned step = (unsigned)counters[STEP];
  for (unsigned i = thread_number(); i < count; i += thread_count()) {
    const double a = shape[i % period], d = (a < 1 ? a + 1 : a) - 1.0 / 3, c = 1 / sqrt(9 * d);
    double log_v = log(-1.0), boost = 0;
    bool waits = true;
    for (unsigned attempt = 0; waits && attempt < ATTEMPTS; attempt++) {
      unsigned word[4];
      philox(i, site, step, attempt, seed, stream, word);
      if (attempt == 0 && a < 1) boost = log(open_unit(word[3])) / a;
      const double x = sqrt(-2 * log(open_unit(word[0]))) * cospi(word[1] * 4.6566128730773926e-10);  // 2^-31
      const double root = 1 + c * x, v = root * root * root, log_of_v = log(v);  // NaN below 0, which is refused
      waits = !(log(open_unit(word[2])) < 0.5 * x * x + d - d * v + d * log_of_v);
      if (!waits) log_v = log_of_v;
    }
    out[i] = real(log(d) + log_v + boost);
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
