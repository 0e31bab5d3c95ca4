// Special functions, a number a thread: log Gamma, Stirling's remainder of it, the derivatives of both, ratios and
// deviances, and how a Gamma draw moves with its shape. All is computed in float64, as on the CPU.

#include "runtime/common.cu"
#include "runtime/stirling.cu"

extern "C" __global__ void __launch_bounds__(256)
log_abs_gamma(const real* a, real* out, unsigned count) {
  for (unsigned i = thread_number(); i < count; i += thread_count()) {
    const double x = a[i];
    out[i] = real(x < -1e308 ? x : lgamma(x));
  }
}

extern "C" __global__ void __launch_bounds__(256)
polygamma(const real* a, real* out, unsigned count, int order) {
  for (unsigned i = thread_number(); i < count; i += thread_count()) out[i] = real(derivative(a[i], order, false));
}

extern "C" __global__ void __launch_bounds__(256)
stirling(const real* a, real* out, unsigned count) {
  for (unsigned i = thread_number(); i < count; i += thread_count()) out[i] = real(stirling_remainder(a[i]));
}

extern "C" __global__ void __launch_bounds__(256)
stirling_derivative(const real* a, real* out, unsigned count, int order) {
  for (unsigned i = thread_number(); i < count; i += thread_count()) out[i] = real(derivative(a[i], order - 1, true));
}

// log(x / y), where w = log x has the digits of a tiny x.
__device__ __forceinline__ double kept_log_quotient(double x, double y, double w) {
  return x < SMALL ? w - log(y) : log_quotient(x, y);
}

// The smaller array of the two is repeated along the leading axes of the larger one: its number i is i % period.
extern "C" __global__ void __launch_bounds__(256)
log_ratio(const real* x, const real* y, const real* w, real* out, unsigned count, unsigned period) {
  for (unsigned i = thread_number(); i < count; i += thread_count())
    out[i] = real(kept_log_quotient(x[i], y[i % period], w[i]));
}

extern "C" __global__ void __launch_bounds__(256)
deviance(const real* a, const real* y, const real* w, real* out, unsigned count, unsigned period) {
  for (unsigned i = thread_number(); i < count; i += thread_count()) {
    const double shape = a[i % period];
    out[i] = real(shape * exp_remainder(kept_log_quotient(y[i], shape, w[i])));
  }
}

// How a draw w = log z, z ~ Gamma(a, 1), moves with a at a fixed quantile: an integral over the nearer tail. With A = a
// and end > 0 where w > psi(a + 1), and A = a + 1 and end < 0 elsewhere, distributions/special.py derives
//     I = integral from 0 to end of (w + t - psi(A)) exp(A t - z (e^t - 1)) dt
//     dw/da = I above, (z I + psi(a + 1) - w) / a below
// Gauss and Legendre's rule has its nodes in x, t = end x (1 + x) / 2, which lie closer where the exponential is large;
// `nodes` are the t / end and then their weights, and e^-reach is left out.
extern "C" __global__ void __launch_bounds__(256)
gamma_log_sample_grad(const real* w, const real* a, const double* nodes, real* out, unsigned count, int each,
                      double reach) {
  for (unsigned i = thread_number(); i < count; i += thread_count()) {
    // beyond 700, where e^w is still a number, the derivative is 0 to 300 digits
    const double at = w[i] > 700 ? 700.0 : w[i], shape = a[i], psi = derivative(shape + 1, 0, false), z = exp(at);
    const bool upper = at > psi;
    const double rate = upper ? shape : shape + 1, offset = at - psi + (upper ? 1 / shape : 0.0);
    // the end to second order in t, and one step towards z (e^t - 1) - A t = reach
    double d = rate - z;
    d = 2 * reach / (fabs(d) + sqrt(d * d + 2 * reach * z));
    const double end = upper ? log1p((reach + rate * d) / z) : (z * expm1(-d) - reach) / rate;
    double integral = 0;
    for (int k = 0; k < each; k++) {
      const double t = nodes[k] * end;
      integral += nodes[each + k] * (offset + t) * exp(rate * t - z * expm1(t));
    }
    integral *= end;
    const double value = upper ? integral : (z * integral - offset) / shape;
    out[i] = real(shape > 0 ? value : log(-1.0));
  }
}
