// Every .cu file includes this one: the floating type that it is compiled for, its functions, sums in a fixed order.
//
// A file is compiled once with -DSINGLE=1 and once with -DSINGLE=0. No header is included, because NVRTC has none.
// No sum uses float atomics: its order depends on shapes only, so a run repeats bit for bit.

#if SINGLE
typedef float real;
#define EXP expf
#define EXPM1 expm1f
#define LOG logf
#define LOG1P log1pf
#define TANH tanhf
#define SQRT sqrtf
#define FABS fabsf
#define FMA fmaf
#define SINCOSPI sincospif
#else
typedef double real;
#define EXP exp
#define EXPM1 expm1
#define LOG log
#define LOG1P log1p
#define TANH tanh
#define SQRT sqrt
#define FABS fabs
#define FMA fma
#define SINCOSPI sincospi
#endif

typedef long long whole;
const unsigned ALL = 0xffffffffu;  // lanes of a warp

// N numbers that are read and written at once. LANES of them are a piece of 16 bytes, the most that one access moves;
// memory is used to the full only if every thread asks for much at a time. Where rows are not whole pieces, or an array
// does not begin on one, the same code goes number by number, with N = 1. The launcher decides which it is.
const int LANES = 16 / sizeof(real);
template <int N> struct alignas(N * sizeof(real)) piece { real v[N]; };

template <int N> __device__ __forceinline__ piece<N> load(const real* a, whole i) {
  return reinterpret_cast<const piece<N>*>(a)[i];
}
template <int N> __device__ __forceinline__ void store(real* a, whole i, const piece<N>& p) {
  reinterpret_cast<piece<N>*>(a)[i] = p;
}

// The sum over a warp, in lane 0.
template <typename T> __device__ __forceinline__ T warp_sum(T v) {
  #pragma unroll
  for (int d = 16; d; d >>= 1) v += __shfl_down_sync(ALL, v, d);
  return v;
}

// The sum over a block of 256 threads, in thread 0.
template <typename T> __device__ __forceinline__ T block_sum(T v) {
  __shared__ T part[8];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  v = warp_sum(v);
  __syncthreads();  // an earlier call may still read `part`
  if (lane == 0) part[warp] = v;
  __syncthreads();
  v = lane < 8 ? part[lane] : T(0);
  return warp == 0 ? warp_sum(v) : v;
}

// This thread's number in the grid, and how many threads there are: for loops that all threads share. Launchers take
// fewer than 2^31 numbers, so that 32 bits hold them: a division of 64 bits takes a hundred instructions, and registers
// that other values need.
__device__ __forceinline__ unsigned thread_number() { return blockIdx.x * blockDim.x + threadIdx.x; }
__device__ __forceinline__ unsigned thread_count() { return gridDim.x * blockDim.x; }
