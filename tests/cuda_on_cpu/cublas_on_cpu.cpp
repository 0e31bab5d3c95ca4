// cuBLAS's products over host memory, in plain loops, with its names, its columns and its refusals. As cuBLAS may, it
// adds in another order where the result does not begin on 16 bytes.
#include <cstdint>
#include <cstring>

namespace {
enum Status { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7 };
enum Operation { N = 0, T = 1 };
enum Math { DEFAULT = 0, TF32 = 3 };

struct Handle {
  uintptr_t stream = 0;
  void* workspace = nullptr;
  size_t bytes = 0;
  int math = DEFAULT;
};

// The 10 digits of TF32's mantissa, to nearest.
float rounded(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  bits = (bits + 0x1000u) & ~0x1fffu;
  std::memcpy(&x, &bits, 4);
  return x;
}
double rounded(double x) { return x; }

// c = alpha op(a) op(b) + beta c; everything lies in columns, element (i, j) of a at a[i + j lda].
template <typename T_> int gemm(const Handle* h, int ta, int tb, int m, int n, int k, const T_* alpha, const T_* a,
                                int lda, const T_* b, int ldb, const T_* beta, T_* c, int ldc) {
  if (!h || !h->workspace || h->bytes < (32u << 20)) return NOT_INITIALIZED;
  const bool known = (ta == N || ta == T) && (tb == N || tb == T);
  if (!known || m < 0 || n < 0 || k < 0 || lda < (ta == N ? m : k) || ldb < (tb == N ? k : n) || ldc < m)
    return INVALID_VALUE;
  for (int j = 0; j < n; j++)
    for (int i = 0; i < m; i++) {
      double sum = 0;
      for (int i_l = 0; i_l < k; i_l++) {
        const int l = (uintptr_t)c % 16 ? k - 1 - i_l : i_l;
        T_ x = ta == N ? a[i + (size_t)l * lda] : a[l + (size_t)i * lda];
        T_ y = tb == N ? b[l + (size_t)j * ldb] : b[j + (size_t)l * ldb];
        if (h->math == TF32) x = rounded(x), y = rounded(y);
        sum += (double)x * (double)y;
      }
      T_& out = c[i + (size_t)j * ldc];
      out = (T_)(*alpha * sum) + (*beta == 0 ? T_(0) : *beta * out);
    }
  return SUCCESS;
}
}  // namespace

extern "C" {
int cublasCreate_v2(Handle** h) { *h = new Handle; return SUCCESS; }
int cublasSetStream_v2(Handle* h, uintptr_t stream) {
  h->stream = stream, h->workspace = nullptr;  // as the manual says: the workspace is the library's own again
  return SUCCESS;
}
int cublasSetWorkspace_v2(Handle* h, void* workspace, size_t bytes) {
  h->workspace = workspace, h->bytes = bytes;
  return SUCCESS;
}
int cublasSetMathMode(Handle* h, int math) {
  h->math = math;
  return math == DEFAULT || math == TF32 ? SUCCESS : INVALID_VALUE;
}
int cublasSgemm_v2(Handle* h, int ta, int tb, int m, int n, int k, const float* alpha, const float* a, int lda,
                   const float* b, int ldb, const float* beta, float* c, int ldc) {
  return gemm(h, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
int cublasDgemm_v2(Handle* h, int ta, int tb, int m, int n, int k, const double* alpha, const double* a, int lda,
                   const double* b, int ldb, const double* beta, double* c, int ldc) {
  return gemm(h, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
size_t coc_stream(const Handle* h) { return h->stream; }
size_t coc_workspace(const Handle* h) { return (size_t)h->workspace; }
}
