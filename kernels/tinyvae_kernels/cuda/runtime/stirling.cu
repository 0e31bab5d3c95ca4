// What log Gamma leaves when its large terms are gone, and what stands beside it in the densities and divergences of
// the Gamma family: distributions/stirling.py derives the formulas. All of it is computed in float64, whatever the
// type: the terms cancel, and float32 results are then right to their last digit.

constexpr double HALF_LOG_2PI = 0.91893853320467274178;
constexpr double SMALL = 1e-30;   // below it the kept logarithm of a number has the digits
constexpr double TINY = 1e-300;   // below it log Gamma(x) is -log x, to all digits
constexpr double DEEPEST = -1e6;  // negative numbers are lifted above 0 step by step, from here on

// exp(x) - 1 - x, by its series x^2/2 (1 + x/3 (1 + x/4 (1 + ...))) where the difference would cancel
template <typename T> __device__ __forceinline__ T exp_remainder(T x) {
  T series = 1;
  #pragma unroll
  for (int k = sizeof(T) == 4 ? 11 : 18; k > 2; k--) series = fma(series, x * (T(1) / k), T(1));
  return fabs(x) < 1 ? T(0.5) * x * x * series : expm1(x) - (x < 1000 ? x : T(0));  // not infinity - infinity
}

// log(x / y). For close numbers it is log(1 + d) with d = (x - y) / y, whose difference is exact.
__device__ __forceinline__ double log_quotient(double x, double y) {
  const double d = (x - y) / y;
  return fabs(d) < 0.5 ? log1p(d) : log(x / y);
}

// Stirling's remainder of log Gamma, mu(x) = log Gamma(x) - (x - 1/2) log x + x - log(2 pi) / 2: from 7.5 on by its
// series, the sum of B_2k / (2k (2k - 1) x^(2k - 1)) with Bernoulli's numbers B (Abramowitz and Stegun, 6.1.40), and
// below by the difference, whose terms are no larger than 20.
__device__ __forceinline__ double stirling_remainder(double x) {
  if (x < TINY) return (x < 0 ? x - x : -HALF_LOG_2PI) - 0.5 * log(x);  // the logarithm of a number below 0 is NaN
  if (x < 7.5) return lgamma(x) + (x - HALF_LOG_2PI) - (x - 0.5) * log(x);
  const double bernoulli[] = {1. / 6, -1. / 30, 1. / 42, -1. / 30, 5. / 66, -691. / 2730, 7. / 6, -3617. / 510};
  const double inverse = 1 / x, square = inverse * inverse;
  double sum = 0;
  #pragma unroll
  for (int k = 8; k > 0; k--) sum = fma(sum, square, bernoulli[k - 1] / (2 * k * (2 * k - 1)));
  return sum * inverse;
}

__device__ __forceinline__ double inverse_power(double x, int n) {
  const double inverse = 1 / x;
  double power = inverse;
  for (int i = 1; i < n; i++) power *= inverse;
  return power;
}

// The derivative of digamma of order n, or that of order n + 1 of Stirling's remainder. By steps up to y = x + N, and
// from there by Euler and Maclaurin's formula (6.4.6 and 6.4.11):
//     (-1)^(n + 1) psi_n(x) / n! = sum over k < N of (x + k)^-(n + 1)
//                                  + y^-n (1 / n + 1 / (2 y) + sum over k of B_2k (2k + n - 1)! / ((2k)! n!) y^-2k)
// psi_0 is digamma: there -log y stands in place of 1 / n. The last sum at y = x is the derivative of Stirling's
// remainder: from N on nothing else is computed, and below the other terms at x are subtracted.
__device__ __forceinline__ double derivative(double a, int n, bool of_remainder) {
  const int steps = n + 10;
  double x = a == 0 ? 0 : a, total = 0;  // -0 is 0
  if (x < 0) {
    total = x > DEEPEST && x != floor(x) ? 0 : log(x);  // NaN at the poles
    for (; x > DEEPEST && x < 0; x += 1) total += inverse_power(x, n + 1);
  }
  const bool far = of_remainder && x > steps;
  if (!far)
    for (int k = steps - 1; k >= 0; k--)  // the smallest first
      total += (k == 0 && of_remainder ? 0.5 : 1.0) * inverse_power(x + k, n + 1);
  // The series as its first term times 1 + q_1 y^-2 (1 + q_2 y^-2 (1 + ...)), q_k the quotients of the coefficients.
  const double quotient[] = {-1. / 5, -5. / 7, -7. / 5, -25. / 11, -7601. / 2275, -3185. / 691, -3617. / 595};
  const double y = far ? x : x + steps, inverse = 1 / y;
  double rest = 1;
  #pragma unroll
  for (int k = 7; k > 0; k--) {
    const double q = quotient[k - 1] / ((2 * k + 1) * (2 * k + 2)) * ((2 * k + n) * (2 * k + n + 1));
    rest = fma(rest * q, inverse * inverse, 1.0);
  }
  rest *= (n + 1) / 12.0 * inverse * inverse;
  double factorial = -1, other = 0;
  if (!far) rest += 0.5 * inverse + (n == 0 ? -log(y) : 1.0 / n);
  if (n > 0) rest *= inverse_power(y, n);
  if (of_remainder && !far && total < 1e308) other = n == 0 ? -log(x) : inverse_power(x, n) / n;
  if (of_remainder && a < 0) total = log(a);
  for (int i = 1; i <= n; i++) factorial *= -i;
  return factorial * (total + (rest - other));
}

// mu(a0) - mu(a) - (a0 - a) mu'(a), what the remainder adds to a divergence. As mu is convex, it is not negative but
// for rounding.
__device__ __forceinline__ double remainder_gap(double a0, double a) {
  return stirling_remainder(a0) - stirling_remainder(a) - (a0 - a) * derivative(a, 0, true);
}
