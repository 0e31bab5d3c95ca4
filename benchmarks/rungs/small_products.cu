// One launch makes a product of small matrices, and where they follow, also a layer's bias and activation.
//
// A block makes one tile of the result, and its warps share k: each takes every W-th slice of k, where W is the number
// of warps, and has sums of its own for the whole tile. A slice goes through panels of shared memory that only one warp
// uses, so no warp waits for another before the end, where the sums of the warps are added in their order. A warp asks
// for the numbers of its next slice before it multiplies the present one. The order of a sum depends on shapes only.

#include "activations.cu"

// A factor lies in memory as lines of numbers, which run along k, or along the rows or columns of the result; a line
// begins `step` numbers after the one before. `pieces` says whether every line consists of pieces of 16 bytes.
struct Factor {
  const real* from;
  int step;
  bool along_k, pieces;
};

// Each lane of a warp sums R x C results of a tile, the lanes stand in DOWN rows, and a slice of k has PIECES pieces of
// 16 bytes.
template <int R_, int C_, int DOWN_, int PIECES_, int WARPS_> struct Tile {
  static const int R = R_, C = C_, DOWN = DOWN_, ACROSS = 32 / DOWN, PIECES = PIECES_, WARPS = WARPS_;
  static const int ROWS = R * DOWN, COLUMNS = C * ACROSS, SLICE = PIECES * LANES, OWN = R * C / LANES;
};

// A panel holds what a warp reads of a factor: X of its rows or columns, one slice of k after the other. In shared
// memory a slice has a line for each k, whichever way the factor lies, so that a lane finds side by side what it
// multiplies. A gap after each line spreads over the banks what is turned on its way in.
template <int X, int PIECES> struct Panel {
  static const int LINE = X + 4, SIZE = PIECES * LANES * LINE, MINE = X * PIECES / 32;
  const bool along_k, pieces;
  const int onward;       // the warp's next slice begins this much later
  const real* from;       // this lane's first piece of the next slice begins here,
  whole stride, advance;  // its next piece in the slice this much later, its first piece of the slice after this much
  int lines, numbers;     // as many lines, and as many numbers of a line, are left from there to the factor's end
  int jump;               // its next piece is as many lines away
  real* to;               // its first piece goes to this place in shared memory,
  int pitch;              // its next piece this much further
  piece<LANES> held[MINE];

  // The warp begins at row or column `first` of `size` and at k of `length`.
  __device__ __forceinline__
  Panel(const Factor& factor, real* panel, int first, int size, int k, int length, int onward, int lane)
    : along_k(factor.along_k), pieces(factor.pieces), onward(onward) {
    const int row = along_k ? lane / PIECES : lane / (X / LANES);
    const int column = (along_k ? lane % PIECES : lane % (X / LANES)) * LANES;
    jump = along_k ? 32 / PIECES : 32 / (X / LANES);
    from = factor.from + (whole)((along_k ? first : k) + row) * factor.step + (along_k ? k : first) + column;
    stride = (whole)jump * factor.step;
    advance = along_k ? onward : (whole)onward * factor.step;
    lines = (along_k ? size - first : length - k) - row;
    numbers = (along_k ? length - k : size - first) - column;
    to = panel + (along_k ? column * LINE + row : row * LINE + column);
    pitch = along_k ? jump : jump * LINE;
  }

  // Ask for this lane's pieces of the next slice; what lies beyond the factor counts as 0.
  __device__ __forceinline__ void read() {
    const int there = numbers > 0 ? lines : 0;
    if (pieces) {
      #pragma unroll
      for (int i = 0; i < MINE; i++) {
        held[i] = {};
        if (i * jump < there) held[i] = load<LANES>(from + i * stride, 0);
      }
    } else {
      #pragma unroll
      for (int i = 0; i < MINE; i++) {
        #pragma unroll
        for (int e = 0; e < LANES; e++) held[i].v[e] = i * jump < there && e < numbers ? from[i * stride + e] : 0;
      }
    }
    from += advance;
    (along_k ? numbers : lines) -= onward;
  }

  __device__ __forceinline__ void write() const {
    #pragma unroll
    for (int i = 0; i < MINE; i++) {
      if (along_k) {
        #pragma unroll
        for (int e = 0; e < LANES; e++) to[i * pitch + e * LINE] = held[i].v[e];
      } else store(to + i * pitch, 0, held[i]);
    }
  }
};

// These give a lane's row and its column among the lanes. Lanes that differ in bit 0 alone read the same numbers of the
// first factor, those that differ in bit 1 alone the same of the second: so shared memory serves half a warp at once.
template <int DOWN> __device__ __forceinline__ int row_of(int lane) {
  return (lane >> 1 & 1) | (lane >> 2 & (DOWN == 8 ? 6 : 2));
}
template <int DOWN> __device__ __forceinline__ int column_of(int lane) {
  return (lane & 1) | (lane >> 1 & 2) | (DOWN == 8 ? 0 : lane >> 2 & 4);
}

__device__ __forceinline__ real activated(int kind, real a) {
  if (kind == RELU) return activation<RELU>(a);
  if (kind == HYPERBOLIC) return activation<HYPERBOLIC>(a);
  if (kind == SOFTPLUS) return activation<SOFTPLUS>(a);
  return a;
}

// a (m, k) @ b (k, n) into out (m, n); where there is a bias (n,), also activation(out + bias) into y (m, n).
template <class T> __device__ __forceinline__
void product(const Factor& a, const Factor& b, real* out, int m, int n, int k, bool pieces, const real* bias, real* y,
             int kind) {
  typedef Panel<T::ROWS, T::PIECES> Left;
  typedef Panel<T::COLUMNS, T::PIECES> Right;
  const int panels = Left::SIZE + Right::SIZE, results = T::ROWS * T::COLUMNS;
  const int own = panels > results ? panels : results;  // a warp has its panels here, and at the end its sums
  __shared__ piece<LANES> memory[T::WARPS * own / LANES];
  __shared__ real biases[T::COLUMNS];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  const int columns = (n + T::COLUMNS - 1) / T::COLUMNS;
  const int top = blockIdx.x / columns * T::ROWS, left = blockIdx.x % columns * T::COLUMNS;
  real* const mine = memory[warp * own / LANES].v;
  const real* const at_row = mine + row_of<T::DOWN>(lane) * T::R;
  const real* const at_column = mine + Left::SIZE + column_of<T::DOWN>(lane) * LANES;

  const int slice = warp * T::SLICE, onward = warps * T::SLICE;
  Left down(a, mine, top, m, slice, k, onward, lane);
  Right across(b, mine + Left::SIZE, left, n, slice, k, onward, lane);
  piece<LANES> sums[T::OWN] = {};  // one row of this lane's results comes after the other
  down.read();
  across.read();
  if (bias != nullptr && threadIdx.x < T::COLUMNS && left + threadIdx.x < n)
    biases[threadIdx.x] = bias[left + threadIdx.x];  // asking here saves waiting for it at the end
  #pragma unroll 1
  for (int l = slice; l < k; l += onward) {
    __syncwarp();  // every lane has multiplied the slice that lies there
    down.write();
    across.write();
    __syncwarp();
    down.read();
    across.read();
    #pragma unroll
    for (int s = 0; s < T::SLICE; s++) {
      const int W = T::R < LANES ? T::R : LANES;
      piece<W> x[T::R / W];
      piece<LANES> z[T::C / LANES];
      #pragma unroll
      for (int i = 0; i < T::R / W; i++) x[i] = load<W>(at_row + s * Left::LINE, i);
      #pragma unroll
      for (int i = 0; i < T::C / LANES; i++) z[i] = load<LANES>(at_column + s * Right::LINE, i * T::ACROSS);
      #pragma unroll
      for (int r = 0; r < T::R; r++) {
        #pragma unroll
        for (int c = 0; c < T::C; c++) {
          real& sum = sums[(r * T::C + c) / LANES].v[c % LANES];
          sum = FMA(x[r / W].v[r % W], z[c / LANES].v[c % LANES], sum);
        }
      }
    }
  }

  __syncwarp();
  #pragma unroll
  for (int i = 0; i < T::OWN; i++) store(mine, i * 32 + lane, sums[i]);
  __syncthreads();
  for (int u = threadIdx.x; u < T::OWN * 32; u += blockDim.x) {  // lane u % 32 of every warp has summed this piece
    piece<LANES> sum = memory[u];
    #pragma unroll 4
    for (int w = 1; w < warps; w++) {
      #pragma unroll
      for (int e = 0; e < LANES; e++) sum.v[e] += memory[w * own / LANES + u].v[e];
    }
    const int row = row_of<T::DOWN>(u & 31) * T::R + u / 32 / (T::C / LANES);
    const int column = (u / 32 % (T::C / LANES) * T::ACROSS + column_of<T::DOWN>(u & 31)) * LANES;
    if (top + row >= m) continue;
    const whole place = (whole)(top + row) * n + left + column;
    const int most = n - left - column;  // so many numbers are left in the row
    piece<LANES> value;
    if (bias != nullptr) {
      #pragma unroll
      for (int e = 0; e < LANES; e++) value.v[e] = activated(kind, sum.v[e] + biases[column + e]);
    }
    if (pieces && most > 0) {
      store(out + place, 0, sum);
      if (bias != nullptr) store(y + place, 0, value);
    } else {
      #pragma unroll
      for (int e = 0; e < LANES; e++)
        if (e < most) {
          out[place + e] = sum.v[e];
          if (bias != nullptr) y[place + e] = value.v[e];
        }
    }
  }
}

// The launcher chooses between these tiles. It gives a multiprocessor 16 warps at once, so a thread may have 128
// registers. A number of float64 takes two of them, so the slices of large tiles are shorter there.
typedef Tile<4, 8, 8, SINGLE ? 2 : 1, SINGLE ? 8 : 4> Large;
typedef Tile<4, 4, 4, SINGLE ? 4 : 2, 8> Middle;
typedef Tile<1, 4, 8, 4, 16> Little;

extern "C" __global__ void __launch_bounds__(32 * Large::WARPS, 16 / Large::WARPS)
product_32x32(const real* a, const real* b, real* out, int m, int n, int k, int a_step, int b_step, bool a_along,
              bool b_along, bool a_pieces, bool b_pieces, bool pieces) {
  product<Large>({a, a_step, a_along, a_pieces}, {b, b_step, b_along, b_pieces}, out, m, n, k, pieces, nullptr,
                 nullptr, IDENTITY);
}

extern "C" __global__ void __launch_bounds__(32 * Middle::WARPS, 16 / Middle::WARPS)
product_16x32(const real* a, const real* b, real* out, int m, int n, int k, int a_step, int b_step, bool a_along,
              bool b_along, bool a_pieces, bool b_pieces, bool pieces) {
  product<Middle>({a, a_step, a_along, a_pieces}, {b, b_step, b_along, b_pieces}, out, m, n, k, pieces, nullptr,
                  nullptr, IDENTITY);
}

extern "C" __global__ void __launch_bounds__(32 * Little::WARPS, 16 / Little::WARPS)
product_8x16(const real* a, const real* b, real* out, int m, int n, int k, int a_step, int b_step, bool a_along,
             bool b_along, bool a_pieces, bool b_pieces, bool pieces) {
  product<Little>({a, a_step, a_along, a_pieces}, {b, b_step, b_along, b_pieces}, out, m, n, k, pieces, nullptr,
                  nullptr, IDENTITY);
}

extern "C" __global__ void __launch_bounds__(32 * Large::WARPS, 16 / Large::WARPS)
layer_32x32(const real* a, const real* b, real* out, int m, int n, int k, int a_step, int b_step, bool a_along,
            bool b_along, bool a_pieces, bool b_pieces, bool pieces, const real* bias, real* y, int kind) {
  product<Large>({a, a_step, a_along, a_pieces}, {b, b_step, b_along, b_pieces}, out, m, n, k, pieces, bias, y, kind);
}

extern "C" __global__ void __launch_bounds__(32 * Middle::WARPS, 16 / Middle::WARPS)
layer_16x32(const real* a, const real* b, real* out, int m, int n, int k, int a_step, int b_step, bool a_along,
            bool b_along, bool a_pieces, bool b_pieces, bool pieces, const real* bias, real* y, int kind) {
  product<Middle>({a, a_step, a_along, a_pieces}, {b, b_step, b_along, b_pieces}, out, m, n, k, pieces, bias, y, kind);
}

extern "C" __global__ void __launch_bounds__(32 * Little::WARPS, 16 / Little::WARPS)
layer_8x16(const real* a, const real* b, real* out, int m, int n, int k, int a_step, int b_step, bool a_along,
           bool b_along, bool a_pieces, bool b_pieces, bool pieces, const real* bias, real* y, int kind) {
  product<Little>({a, a_step, a_along, a_pieces}, {b, b_step, b_along, b_pieces}, out, m, n, k, pieces, bias, y, kind);
}
