// cuda_on_cpu.h - run CUDA C kernels on the host: one fiber per CUDA thread, one block at a time.
//
// Compile a .cu file as host C++ with  `g++ -x c++ -include cuda_on_cpu.h` ; the file itself stays plain CUDA C.
// Semantics kept: __syncthreads (all non-exited threads), *_sync warp collectives with their masks, static and
// dynamic shared memory (poisoned with 0xFF before every block), exited threads, atomics.  Thread order inside a
// block is selectable (forward / reverse / shuffled) so that a missing barrier shows up as a changed result; where that
// number is odd, the last block runs first, so that a kernel which counts on the order of blocks shows up, too.
// A barrier that can never be satisfied is reported, never hung; a shuffle from an absent lane reads a NaN.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>
#include <setjmp.h>
#include <signal.h>
#include <ucontext.h>

#define CUDA_ON_CPU 1
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static __attribute__((section("coc_shared")))
#define warpSize 32

struct dim3 { unsigned x = 1, y = 1, z = 1; dim3(unsigned X = 1, unsigned Y = 1, unsigned Z = 1) : x(X), y(Y), z(Z) {} };
#define COC_VEC(T, N) struct alignas(2 * sizeof(T)) N##2 { T x, y; }; \
  struct alignas(sizeof(T) * 4 > 16 ? 16 : sizeof(T) * 4) N##4 { T x, y, z, w; }; \
  static inline N##2 make_##N##2(T a, T b) { return {a, b}; } \
  static inline N##4 make_##N##4(T a, T b, T c, T d) { return {a, b, c, d}; }
COC_VEC(float, float) COC_VEC(int, int) COC_VEC(unsigned, uint) COC_VEC(double, double)

static dim3 threadIdx, blockIdx, blockDim, gridDim;
extern "C" { extern char __start_coc_shared[] __attribute__((weak, visibility("hidden")));
             extern char __stop_coc_shared[] __attribute__((weak, visibility("hidden"))); }

namespace coc {
enum Kind { SYNCWARP, SHFL, BALLOT, REDUCE };
enum State : uint8_t { NEW, READY, AT_BLOCK, AT_WARP, DONE };
struct Fiber { ucontext_t uc; jmp_buf jb; std::unique_ptr<char[]> stack; bool started = false; };
struct Thread { dim3 idx; State st = NEW; Fiber* fiber = nullptr;
                unsigned mask = 0; Kind kind = SYNCWARP; uint64_t in = 0, out = 0; int arg = 0; int pred = 0; };
constexpr size_t STACK = 128 << 10;
static std::vector<Thread> T;               // the threads of the running block
static std::vector<unsigned> order, queue_; // start order; ready queue
static size_t qhead, next_, ndone, nblock;
static int cur = -1, red_and, red_or, red_cnt;
static std::vector<std::unique_ptr<Fiber>> pool; static std::vector<Fiber*> freef; static Fiber* curf;
static jmp_buf sched; static ucontext_t sched_uc; static char error_[512]; static bool dead;
static void (*body)(void*); static void* body_arg;
constexpr size_t DYN_MAX = 227 << 10, DYN_GUARD = 256;
alignas(16) static unsigned char dyn[DYN_MAX + DYN_GUARD];   // dynamic shared memory and a red zone

static inline void set_cur(int t) { cur = t; threadIdx = T[t].idx; }
#ifdef COC_SWAPCONTEXT      // the slow, fully portable switch (a signal-mask system call each time): 184 ns against 17 ns
__attribute__((noinline)) static void to_sched() { swapcontext(&curf->uc, &sched_uc); }
#else
__attribute__((noinline)) static void to_sched() { if (!_setjmp(curf->jb)) _longjmp(sched, 1); }
#endif
static void fiber_main() {
  for (;;) {                                 // one fiber runs NEW threads one after the other until one blocks,
    while (next_ < order.size() && !dead) {  // so a kernel without barriers needs a single fiber
      int t = order[next_++]; T[t].fiber = curf; set_cur(t); body(body_arg);
      T[cur].st = DONE; ndone++;
    }
    freef.push_back(curf); to_sched();
  }
}
__attribute__((noinline)) static void resume(Fiber* f) {
  curf = f;
#ifndef COC_SWAPCONTEXT
  if (_setjmp(sched)) return;
  if (f->started) _longjmp(f->jb, 1);
#endif
  if (!f->started) {
    f->started = true; getcontext(&f->uc); f->stack.reset(new char[STACK]);
    f->uc.uc_stack.ss_sp = f->stack.get(); f->uc.uc_stack.ss_size = STACK; f->uc.uc_link = nullptr;
    makecontext(&f->uc, fiber_main, 0);
  }
#ifdef COC_SWAPCONTEXT
  swapcontext(&sched_uc, &f->uc);
#else
  setcontext(&f->uc);
#endif
}
template <class... A> static void fail(const char* fmt, A... a) {
  if (!error_[0]) snprintf(error_, sizeof error_, fmt, a...);
  dead = true;
}
static void block_here() { int me = cur; to_sched(); set_cur(me); }
static void die_here() { for (;;) { T[cur].st = DONE; to_sched(); } }   // never resumed
static void release(unsigned t) { T[t].st = READY; queue_.push_back(t); }

// --- block barrier -------------------------------------------------------------------------------------------
static inline int syncthreads(int pred = 0) {
  T[cur].pred = pred != 0; T[cur].st = AT_BLOCK; nblock++; block_here(); return 0;
}
static void release_block() {
  red_and = 1; red_or = 0; red_cnt = 0;
  for (auto& t : T) if (t.st == AT_BLOCK) { red_and &= t.pred; red_or |= t.pred; red_cnt += t.pred; }
  for (unsigned t : order) if (T[t].st == AT_BLOCK) release(t);
  nblock = 0;
}
// --- warp collectives ----------------------------------------------------------------------------------------
// Complete the collective that the lanes of `mask` wait at, if every lane named there has arrived or has exited.
static bool complete(unsigned w0, unsigned mask, Kind k) {
  unsigned arrived = 0, gone = 0;
  for (unsigned l = 0; l < 32; l++) if (mask >> l & 1) {
    Thread& o = T[w0 + l];
    if (o.st == DONE) gone |= 1u << l;
    if (o.st != AT_WARP || o.mask != mask) continue;
    if (o.kind != k) { fail("block (%u,%u,%u): lanes of warp %u are at different collectives under mask 0x%x", blockIdx.x, blockIdx.y, blockIdx.z, w0 / 32, mask); return false; }
    arrived |= 1u << l;
  }
  if ((arrived | gone) != mask) return false;
  uint64_t all = 0;
  if (k == BALLOT) for (unsigned l = 0; l < 32; l++) if (arrived >> l & 1) all |= uint64_t(T[w0 + l].arg != 0) << l;
  for (unsigned l = 0; l < 32; l++) if (arrived >> l & 1) {
    Thread& o = T[w0 + l];
    o.out = k != SHFL ? all : arrived >> o.arg & 1 ? T[w0 + o.arg].in : 0x7ff8dead7fc0deadull;   // absent source: a NaN
  }
  for (unsigned t : order) if ((t & ~31u) == w0 && arrived >> (t & 31) & 1) release(t);
  return true;
}
static uint64_t warp_op(unsigned mask, Kind k, uint64_t in, int arg) {
  Thread& me = T[cur]; unsigned w0 = cur & ~31u;
  if (T.size() - w0 < 32) mask &= (1u << (T.size() - w0)) - 1;     // a partial last warp: absent lanes are ignored
  if (!(mask >> (cur & 31) & 1)) { fail("block (%u,%u,%u) thread %d: calls a _sync collective outside its own mask 0x%x", blockIdx.x, blockIdx.y, blockIdx.z, cur, mask); die_here(); }
  me.in = in; me.arg = arg; me.kind = k; me.mask = mask; me.st = AT_WARP;
  complete(w0, mask, k); block_here(); return T[cur].out;
}
// Nothing can run: a lane may have exited while others waited for it.
static bool complete_any() {
  for (unsigned t = 0; t < T.size(); t++) if (T[t].st == AT_WARP && complete(t & ~31u, T[t].mask, T[t].kind)) return true;
  return false;
}
template <class V> static V shfl(unsigned m, V v, int src) {
  static_assert(sizeof(V) <= 8, "shuffle of at most 8 bytes"); uint64_t b = 0; memcpy(&b, &v, sizeof v);
  b = warp_op(m, SHFL, b, src); memcpy(&v, &b, sizeof v); return v;
}
// --- running a grid ------------------------------------------------------------------------------------------
static int run_grid(dim3 g, dim3 b, size_t shmem, int schedule, void (*f)(void*), void* a) {
  size_t n = size_t(b.x) * b.y * b.z; error_[0] = 0; dead = false;
  if (n == 0 || n > 1024) { fail("block of %zu threads", n); return 1; }
  if (shmem > DYN_MAX) { fail("%zu bytes of dynamic shared memory", shmem); return 1; }
  gridDim = g; blockDim = b; body = f; body_arg = a;
  order.resize(n); uint64_t rng = 0x9e3779b97f4a7c15ull + schedule;
  const size_t blocks = size_t(g.x) * g.y * g.z;
  for (size_t number = 0; number < blocks; number++) {
    const size_t at = schedule % 2 ? blocks - 1 - number : number;
    blockIdx = dim3(at % g.x, at / g.x % g.y, at / g.x / g.y);
    if (__start_coc_shared) memset(__start_coc_shared, 0xFF, __stop_coc_shared - __start_coc_shared);
    memset(dyn, 0xFF, shmem + DYN_GUARD);
    T.assign(n, Thread());
    for (size_t t = 0; t < n; t++) { T[t].idx = dim3(t % b.x, t / b.x % b.y, t / b.x / b.y); order[t] = t; }
    if (schedule == 1) std::reverse(order.begin(), order.end());
    if (schedule >= 2) for (size_t i = n - 1; i; i--) { rng ^= rng << 13; rng ^= rng >> 7; rng ^= rng << 17; std::swap(order[i], order[rng % (i + 1)]); }
    queue_.clear(); qhead = next_ = ndone = nblock = 0;
    while (ndone < n && !dead) {
      if (qhead < queue_.size()) { unsigned t = queue_[qhead++]; set_cur(t); resume(T[t].fiber); }
      else if (next_ < n) {
        if (freef.empty()) { pool.emplace_back(new Fiber); freef.push_back(pool.back().get()); }
        Fiber* f2 = freef.back(); freef.pop_back(); resume(f2);
      }
      else if (nblock && nblock + ndone == n) { queue_.clear(); qhead = 0; release_block(); }
      else if (complete_any()) {}
      else {
        size_t w = 0; for (auto& t : T) w += t.st == AT_WARP;
        fail("block (%u,%u,%u): deadlock: of %zu threads %zu wait at __syncthreads, %zu at a warp collective, %zu have exited", blockIdx.x, blockIdx.y, blockIdx.z, n, nblock, w, ndone);
      }
    }
    for (size_t i = shmem; i < shmem + DYN_GUARD && !dead; i++) if (dyn[i] != 0xFF)
      fail("block (%u,%u,%u): dynamic shared memory written at byte %zu of %zu", blockIdx.x, blockIdx.y, blockIdx.z, i, shmem);
    if (dead) { pool.clear(); freef.clear(); return 1; }   // abandoned fibers: drop them all
  }
  return 0;
}
// --- memory outside the arrays ---------------------------------------------------------------------------------
// Arrays end at pages that may not be touched, so a read or write beyond one is a fault, caught here.
static sigjmp_buf escape_; static char alternate[64 << 10];
static void on_fault(int) { siglongjmp(escape_, 1); }
static int run_guarded(dim3 g, dim3 b, size_t shmem, int schedule, void (*f)(void*), void* a) {
  struct sigaction act = {}, segv, bus; stack_t stack = {}, before;
  stack.ss_sp = alternate; stack.ss_size = sizeof alternate; sigaltstack(&stack, &before);
  act.sa_handler = on_fault; act.sa_flags = SA_ONSTACK | SA_NODEFER; sigemptyset(&act.sa_mask);
  sigaction(SIGSEGV, &act, &segv); sigaction(SIGBUS, &act, &bus);
  int failed;
  if (!sigsetjmp(escape_, 1)) failed = run_grid(g, b, shmem, schedule, f, a);
  else {
    error_[0] = 0; failed = 1; pool.clear(); freef.clear();
    fail("block (%u,%u,%u) thread (%u,%u,%u) touched memory outside its arrays", blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z);
  }
  sigaction(SIGSEGV, &segv, nullptr); sigaction(SIGBUS, &bus, nullptr); sigaltstack(&before, nullptr);
  return failed;
}
// --- argument unpacking, as cuLaunchKernel does it -----------------------------------------------------------
template <class... A> struct Call { void (*f)(A...); void** p;
  template <size_t... I> void go(std::index_sequence<I...>) { f(*static_cast<std::remove_const_t<A>*>(p[I])...); }
  static void run(void* self) { static_cast<Call*>(self)->go(std::index_sequence_for<A...>()); } };
template <class... A> int launch(void (*f)(A...), const unsigned* d, size_t sh, int sched, void** p) {
  Call<A...> c{f, p}; return run_guarded(dim3(d[0], d[1], d[2]), dim3(d[3], d[4], d[5]), sh, sched, &Call<A...>::run, &c);
}
template <class X> constexpr char code() {
  using U = std::remove_cv_t<X>;
  return std::is_same_v<U, float> ? 'f' : std::is_same_v<U, double> ? 'd' : std::is_same_v<U, bool> ? '?'
       : std::is_integral_v<U> ? (std::is_signed_v<U> ? "_bh_i___q"[sizeof(U)] : "_BH_I___Q"[sizeof(U)]) : 'x';
}
template <class... A> const char* signature(void (*)(A...)) {   // e.g. "Pf pf i": pointer to float, to const float, int
  static char s[3 * sizeof...(A) + 1]; char* q = s;
  (void)std::initializer_list<int>{([&] { if (std::is_pointer_v<A>) { using E = std::remove_pointer_t<A>; *q++ = std::is_const_v<E> ? 'p' : 'P'; *q++ = code<E>(); } else *q++ = code<A>(); *q++ = ' '; }(), 0)...};
  return s;
}
}  // namespace coc

#define CUDA_ON_CPU_EXPORT(k) \
  extern "C" int coc_launch_##k(const unsigned* d, size_t sh, int sched, void** p) { return coc::launch(&k, d, sh, sched, p); } \
  extern "C" const char* coc_signature_##k() { return coc::signature(&k); }
extern "C" const char* coc_error() { return coc::error_; }

// --- the device functions kernels use ------------------------------------------------------------------------
static inline void __syncthreads() { coc::syncthreads(); }
static inline int __syncthreads_and(int p) { coc::syncthreads(p); return coc::red_and; }
static inline int __syncthreads_or(int p) { coc::syncthreads(p); return coc::red_or; }
static inline int __syncthreads_count(int p) { coc::syncthreads(p); return coc::red_cnt; }
static inline void __syncwarp(unsigned m = ~0u) { coc::warp_op(m, coc::SYNCWARP, 0, 0); }
static inline void __threadfence() {}
static inline void __threadfence_block() {}
static inline int coc_lane() { return coc::cur & 31; }
template <class V> V __shfl_sync(unsigned m, V v, int s, int w = 32) { int l = coc_lane(); return coc::shfl(m, v, (l & ~(w - 1)) | (s & (w - 1))); }
template <class V> V __shfl_down_sync(unsigned m, V v, unsigned d, int w = 32) { int l = coc_lane(), s = l + int(d); return coc::shfl(m, v, (s & ~(w - 1)) == (l & ~(w - 1)) ? s : l); }
template <class V> V __shfl_up_sync(unsigned m, V v, unsigned d, int w = 32) { int l = coc_lane(), s = l - int(d); return coc::shfl(m, v, s >= (l & ~(w - 1)) ? s : l); }
template <class V> V __shfl_xor_sync(unsigned m, V v, int x, int w = 32) { int l = coc_lane(), s = l ^ x; return coc::shfl(m, v, (s & ~(w - 1)) <= (l & ~(w - 1)) ? s : l); }
static inline unsigned __ballot_sync(unsigned m, int p) { return unsigned(coc::warp_op(m, coc::BALLOT, 0, p)); }
static inline int __any_sync(unsigned m, int p) { return __ballot_sync(m, p) != 0; }
static inline int __all_sync(unsigned m, int p) { return __ballot_sync(m, !p) == 0; }
template <class V> V coc_add(V* a, V v) { V o = *a; *a = o + v; return o; }
template <class V> V atomicAdd(V* a, std::common_type_t<V> v) { return coc_add(a, v); }
static inline unsigned atomicInc(unsigned* a, unsigned most) { unsigned o = *a; *a = o >= most ? 0 : o + 1; return o; }
template <class V> V atomicMax(V* a, std::common_type_t<V> v) { V o = *a; if (v > o) *a = v; return o; }
template <class V> V atomicMin(V* a, std::common_type_t<V> v) { V o = *a; if (v < o) *a = v; return o; }
template <class V> V atomicExch(V* a, std::common_type_t<V> v) { V o = *a; *a = v; return o; }
template <class V> V atomicCAS(V* a, std::common_type_t<V> c, std::common_type_t<V> v) { V o = *a; if (o == c) *a = v; return o; }
template <class V> V __ldg(const V* p) { return *p; }
#define __expf(x) expf(x)                 // glibc declares functions of these names
#define __logf(x) logf(x)
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __frcp_rn(float a) { return 1.0f / a; }
static inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1.f) : 0.f; }
static inline void coc_sincospif(float x, float* s, float* c) { *s = float(sin(M_PI * double(x))); *c = float(cos(M_PI * double(x))); }
static inline void coc_sincospi(double x, double* s, double* c) { *s = double(sinl(M_PIl * x)); *c = double(cosl(M_PIl * x)); }
static inline double coc_cospi(double x) { return double(cosl(M_PIl * x)); }
static inline float coc_rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline double coc_rsqrt(double x) { return 1.0 / sqrt(x); }
#define sincospif coc_sincospif           // as some C libraries do of these
#define sincospi coc_sincospi
#define cospi coc_cospi
#define rsqrtf coc_rsqrtf
#define rsqrt coc_rsqrt
static inline float fdividef(float a, float b) { return a / b; }
static inline int __float_as_int(float f) { int i; memcpy(&i, &f, 4); return i; }
static inline float __int_as_float(int i) { float f; memcpy(&f, &i, 4); return f; }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((uint64_t(a) * b) >> 32); }
using std::max; using std::min;
using std::expm1; using std::fabs; using std::fma;   // of either type, as CUDA's are
