// Counter-based random words (Philox 4x32-10), the integers of tinyvae/engine/noise.py, and normal numbers of them.

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

// Box and Muller's transform of a pair of words: sqrt(-2 log u) (cos 2 pi v, sin 2 pi v).
__device__ __forceinline__ void box_muller(unsigned first, unsigned second, real& cosine, real& sine) {
  const real u = FMA(real(first), real(2.3283064365386963e-10), real(1.1641532182693481e-10));  // 2^-32, 2^-33
  const real radius = SQRT(-2 * LOG(u));
  SINCOSPI(2 * (real(second) * real(2.3283064365386963e-10)), &sine, &cosine);
  cosine *= radius;
  sine *= radius;
}

// The normal number `index` of a draw.
__device__ __forceinline__ real standard_normal(unsigned index, unsigned site, unsigned step, unsigned seed,
                                                unsigned stream) {
  unsigned word[4];
  philox(index / 4, site, step, 0, seed, stream, word);
  real cosine, sine;
  box_muller(index & 2 ? word[2] : word[0], index & 2 ? word[3] : word[1], cosine, sine);
  return index & 1 ? sine : cosine;
}
