// Operations of the table that NumPy does in one pass, as kernels: arithmetic, comparisons, choices, copies, sums along axes. A launch
// of an array library would stand between the pieces of a step's graph; these are parts of it.
//
// Operands may be repeated or have gaps. `layout` holds n1 and n2, the lengths of the two inner axes of three, and for
// each operand the place of its first number and how far it moves along the three axes.

#include "runtime/common.cu"

__device__ __forceinline__ int place(const int* layout, int operand, unsigned i) {
  const unsigned n1 = layout[0], n2 = layout[1];
  const int* move = layout + 2 + 4 * operand;
  return move[0] + (int)(i / n2 / n1) * move[1] + (int)(i / n2 % n1) * move[2] + (int)(i % n2) * move[3];
}

enum One { NEG, ABS, SQRT_OF, EXP_OF, LOG_OF, EXPM1_OF, LOG1P_OF, TANH_OF, SIGMOID, SOFTPLUS, RELU };

__device__ __forceinline__ real of_one(int kind, real a) {
  const real small = EXP(-FABS(a));  // it never overflows
  switch (kind) {
    case NEG: return -a;
    case ABS: return FABS(a);
    case SQRT_OF: return SQRT(a);
    case EXP_OF: return EXP(a);
    case LOG_OF: return LOG(a);
    case EXPM1_OF: return EXPM1(a);
    case LOG1P_OF: return LOG1P(a);
    case TANH_OF: return TANH(a);
    case SIGMOID: return (a >= 0 ? real(1) : small) / (1 + small);
    case SOFTPLUS: return (a > 0 ? a : real(0)) + LOG1P(small);
    default: return a < 0 ? real(0) : a;  // RELU, which lets a NaN pass
  }
}

extern "C" __global__ void __launch_bounds__(256)
unary(const real* a, real* out, const int* layout, unsigned count, int kind) {
  for (unsigned i = thread_number(); i < count; i += thread_count()) out[i] = of_one(kind, a[place(layout, 0, i)]);
}

enum Two { ADD, SUB, MUL, DIV, MAXIMUM, MINIMUM };

__device__ __forceinline__ real of_two(int kind, real a, real b) {
  switch (kind) {
    case ADD: return a + b;
    case SUB: return a - b;
    case MUL: return a * b;
    case DIV: return a / b;
    case MAXIMUM: return a > b || a != a ? a : b;  // a NaN of either passes
    default: return a < b || a != a ? a : b;       // MINIMUM
  }
}

extern "C" __global__ void __launch_bounds__(256)
binary(const real* a, const real* b, real* out, const int* layout, unsigned count, int kind) {
  for (unsigned i = thread_number(); i < count; i += thread_count())
    out[i] = of_two(kind, a[place(layout, 0, i)], b[place(layout, 1, i)]);
}

enum Order { GREATER, GREATER_EQUAL, LESS, LESS_EQUAL, EQUAL, NOT_EQUAL };

__device__ __forceinline__ bool holds(int kind, real a, real b) {
  switch (kind) {
    case GREATER: return a > b;
    case GREATER_EQUAL: return a >= b;
    case LESS: return a < b;
    case LESS_EQUAL: return a <= b;
    case EQUAL: return a == b;
    default: return a != b;  // NOT_EQUAL
  }
}

extern "C" __global__ void __launch_bounds__(256)
compare(const real* a, const real* b, bool* out, const int* layout, unsigned count, int kind) {
  for (unsigned i = thread_number(); i < count; i += thread_count())
    out[i] = holds(kind, a[place(layout, 0, i)], b[place(layout, 1, i)]);
}

extern "C" __global__ void __launch_bounds__(256)
choose(const bool* flag, const real* a, const real* b, real* out, const int* layout, unsigned count) {
  for (unsigned i = thread_number(); i < count; i += thread_count())
    out[i] = flag[place(layout, 0, i)] ? a[place(layout, 1, i)] : b[place(layout, 2, i)];
}

extern "C" __global__ void __launch_bounds__(256)
as_numbers(const bool* flag, real* out, const int* layout, unsigned count) {
  for (unsigned i = thread_number(); i < count; i += thread_count()) out[i] = flag[place(layout, 0, i)] ? 1 : 0;
}

// The result is an operand, too: a part of its memory may be written.
extern "C" __global__ void __launch_bounds__(256)
move_into(const real* a, real* out, const int* layout, unsigned count) {
  for (unsigned i = thread_number(); i < count; i += thread_count())
    out[place(layout, 1, i)] = a[place(layout, 0, i)];
}

extern "C" __global__ void __launch_bounds__(256)
clear(real* out, unsigned count) {
  for (unsigned i = thread_number(); i < count; i += thread_count()) out[i] = 0;
}

// ---- along axes -----------------------------------------------------------------------------------------------------
// A line has n numbers, `inner` apart from one to the next. A thread computes one line. A long line without gaps has a
// warp, each of whose lanes takes every 32nd number. Sums are in float64.

struct Line {
  const real* a;
  int n;
  unsigned inner;
  __device__ real operator()(int k) const { return a[k * inner]; }
};

__device__ __forceinline__ Line line(const real* a, unsigned i, int n, unsigned inner) {
  return {a + i / inner * n * inner + i % inner, n, inner};
}

__device__ __forceinline__ real larger(real a, real b) { return a >= b || a != a ? a : b; }  // a NaN stays

__device__ __forceinline__ real largest(const Line& a) {
  real top = a(0);
  for (int k = 1; k < a.n; k++) top = larger(top, a(k));
  return top;
}

// This is a - top, and 0 where a equals top, even if both are infinite.
__device__ __forceinline__ real below(real a, real top) { return a == top ? real(0) : a - top; }

__device__ __forceinline__ real exponentials(const Line& a, real top) {
  double sum = 0;
  for (int k = 0; k < a.n; k++) sum += EXP(below(a(k), top));
  return real(sum);
}

enum Reduction { SUM, MEAN, MAX, LOGSUMEXP };

extern "C" __global__ void __launch_bounds__(256)
reduce(const real* a, real* out, unsigned count, int n, unsigned inner, int kind) {
  for (unsigned i = thread_number(); i < count; i += thread_count()) {
    const Line numbers = line(a, i, n, inner);
    if (kind == MAX || kind == LOGSUMEXP) {
      const real top = largest(numbers);
      out[i] = kind == MAX ? top : LOG(exponentials(numbers, top)) + top;
    } else {
      double sum = 0;
      for (int k = 0; k < n; k++) sum += numbers(k);
      out[i] = real(kind == MEAN ? sum / n : sum);
    }
  }
}

// The lines are long and have no gaps.
extern "C" __global__ void __launch_bounds__(256)
reduce_long(const real* a, real* out, unsigned count, int n, int kind) {
  const unsigned i = blockIdx.x * 8 + threadIdx.x / 32;
  if (i >= count) return;  // a warp leaves together
  const int lane = threadIdx.x % 32;
  a += (whole)i * n;
  double sum = 0;
  if (kind == MAX || kind == LOGSUMEXP) {
    real top = a[lane];
    for (int k = lane + 32; k < n; k += 32) top = larger(top, a[k]);
    #pragma unroll
    for (int d = 16; d; d >>= 1) top = larger(top, __shfl_xor_sync(ALL, top, d));
    if (kind == LOGSUMEXP)
      for (int k = lane; k < n; k += 32) sum += EXP(below(a[k], top));
    sum = warp_sum(sum);
    if (lane == 0) out[i] = kind == MAX ? top : LOG(real(sum)) + top;
  } else {
    #pragma unroll 4
    for (int k = lane; k < n; k += 32) sum += a[k];
    sum = warp_sum(sum);
    if (lane == 0) out[i] = real(kind == MEAN ? sum / n : sum);
  }
}

// Where all are -infinity there is no distribution, and the logarithm is NaN.
extern "C" __global__ void __launch_bounds__(256)
log_softmax(const real* a, real* out, unsigned count, int n, unsigned inner) {
  for (unsigned i = thread_number(); i < count; i += thread_count()) {
    const Line numbers = line(a, i, n, inner);
    const real top = largest(numbers), none = top < 0 && top == 2 * top ? top - top : real(0);
    const real shift = LOG(exponentials(numbers, top)) + none;
    for (int k = 0; k < n; k++) out[numbers.a - a + k * inner] = below(numbers(k), top) - shift;
  }
}

extern "C" __global__ void __launch_bounds__(256)
softmax(const real* a, real* out, unsigned count, int n, unsigned inner) {
  for (unsigned i = thread_number(); i < count; i += thread_count()) {
    const Line numbers = line(a, i, n, inner);
    real* shares = out + (numbers.a - a);
    const real top = largest(numbers);
    double total = 0;
    for (int k = 0; k < n; k++) total += shares[k * inner] = EXP(below(numbers(k), top));
    for (int k = 0; k < n; k++) shares[k * inner] /= real(total);
  }
}
