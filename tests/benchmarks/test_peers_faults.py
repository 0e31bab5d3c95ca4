"""Five faults found in public projects of this kind, one regression test each: the right code passes, the fault fails.

1. exp(logvar) taken for the standard deviation in the sampler, while the divergence takes it for the variance.
2. Importance weights with the sign turned round, so that worse samples weigh more.
3. An evidence estimate that ignores how many samples were asked for, or drops the remainder of the last chunk.
4. A comparison written so that NaN passes it (`if error > bound: fail`).
5. A resumed run that seeds its generator again, and repeats the order and the noise of its beginning.
"""

import os
import signal

import numpy as np
import pytest
from oracles import Given, LinearGaussian, fixed
from scipy import special, stats
from support import assert_close, assert_same_bits, likely, likely_zero

import tinyvae as tv
from tinyvae import runs
from tinyvae.distributions import Normal, kl
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor
from tinyvae.engine.testing import GradientError, check_gradients
from tinyvae.evidence import importance
from tinyvae.evidence.importance import log_evidence
from tinyvae.models import Batch
from tinyvae.training.batches import STEP


def test_1_logvar_is_the_logarithm_of_the_variance():
    # in the sample, in the density and in the divergence, by one draw of each
    logvar, count = -1.4, 20_000

    def variance_of_samples(q):
        draws = q.sample(Noise(1), count).numpy().reshape(-1)
        statistic, law = draws.var(ddof=1) * (count - 1) / np.exp(logvar), stats.chi2(count - 1)
        likely("variance of samples", 2 * min(law.cdf(statistic), law.sf(statistic)))

    def divergence_of_samples(q, closed):
        z, prior = q.sample(Noise(2), count), Normal.standard(1, np.float64)
        gap = (Normal(q.mu, q.logvar).log_prob(z) - prior.log_prob(z)).numpy().reshape(-1)
        likely_zero("divergence of samples", gap.mean() - closed, gap.std() / np.sqrt(count))

    class Fault(Normal):
        sigma = property(lambda self: self.logvar.exp())

    mu, of_x = Tensor(np.array([[0.3]])), Tensor(np.array([[logvar]]))
    closed = kl(Normal(mu, of_x), Normal.standard(1, np.float64)).item()
    both = Normal.from_raw(Tensor(np.array([[0.3, logvar]])))
    for q in (Normal(mu, of_x), both):
        variance_of_samples(q)
        divergence_of_samples(q, closed)
    together = both.sample_with_kl(Normal.standard(1, np.float64), Noise(1), 5)[0].numpy()
    assert_close(together, both.sample(Noise(1), 5).numpy(), 4)
    with pytest.raises(AssertionError):
        variance_of_samples(Fault(mu, of_x))
    with pytest.raises(AssertionError):
        divergence_of_samples(Fault(mu, of_x), closed)


def test_2_better_samples_weigh_more():
    # two draws, one at the posterior's mean and one far from it: the estimate is near the better one's log weight
    model, x = LinearGaussian.of_one_dimension(), np.array([[1.3]])
    mean = model.exact_posterior(x)[0]
    good, bad = mean, mean + 3.0
    q = fixed([[0.0]], [[0.0]])

    def log_weight(z):
        log_p = model.likelihood(Tensor(z)).log_prob(Tensor(x)) + model.prior.log_prob(Tensor(z))
        return (log_p - q(None).log_prob(Tensor(z))).item()

    weights = np.array([log_weight(good), log_weight(bad)])
    assert weights[0] > weights[1] + 10
    found = log_evidence(model.with_q(q), Batch(Tensor(x)), Given([[[good[0, 0]]], [[bad[0, 0]]]]), 2)[0][0]
    right = special.logsumexp(weights) - np.log(2)
    fault = (special.softmax(-weights) * weights).sum()  # weights from the error, not from its negative
    assert abs(found - right) <= 1e-10
    assert not abs(fault - right) <= 1e-10
    assert fault < right - 10
    # and on average more samples bring the estimate up to the evidence, never past it by more than its noise
    many, prior = Tensor(np.broadcast_to(x, (500, 1)).copy()), fixed(np.zeros((500, 1)), np.zeros((500, 1)))(None)
    estimates = [log_evidence(model.with_q(prior), Batch(many), Noise(1), k)[0].mean() for k in (1, 5, 50, 5000)]
    assert estimates == sorted(estimates)
    assert abs(estimates[-1] - model.log_evidence(x)[0]) <= 0.01


@pytest.mark.parametrize("samples", [1, 3, 10, 11, 19, 20])
def test_3_exactly_k_samples_enter_the_evidence(samples, monkeypatch):
    # fewer than a chunk, whole chunks, and a remainder: every draw counts once, and the divisor is K
    model, x = LinearGaussian.of_one_dimension(), np.array([[1.3]])
    monkeypatch.setattr(importance, "CHUNK", 10)
    eps = np.random.default_rng(0).standard_normal((samples, 1, 1))

    def check(used, divisor):
        z = eps[:used, 0]
        log_w = stats.norm(2 * z, 0.5).logpdf(1.3)  # q is the prior
        expected = special.logsumexp(log_w) - np.log(divisor)
        found = log_evidence(model.with_q(fixed([[0.0]], [[0.0]])), Batch(Tensor(x)), Given(eps), samples)[0][0]
        assert abs(found - expected) <= 1e-10

    check(samples, samples)
    if samples % 10 and samples > 10:
        with pytest.raises(AssertionError):  # the remainder dropped
            check(10, 10)
    if samples < 10:
        with pytest.raises(AssertionError):  # a whole chunk divided by
            check(samples, 10)


def test_4_nan_fails_every_comparison():
    def poisoned(x):
        return x * np.nan

    with np.errstate(all="ignore"):
        with pytest.raises(GradientError):
            check_gradients(poisoned, np.ones(3))
        with pytest.raises(GradientError):  # along random directions
            check_gradients(poisoned, np.ones(100))
        with pytest.raises(GradientError):  # only one element is not a number
            check_gradients(lambda x: x * np.array([1.0, np.nan, 1.0]), np.ones(3))
    nan = np.array([1.0, np.nan])
    for check in (lambda: assert_close(nan, np.ones(2), 1e9), lambda: assert_close(np.ones(2), nan, 1e9),
                  lambda: assert_same_bits(nan, np.ones(2)), lambda: likely("NaN", np.nan),
                  lambda: likely_zero("NaN", np.nan, 1.0), lambda: likely_zero("NaN", 0.0, np.nan)):
        with pytest.raises(AssertionError):
            check()
    error = abs(nan - 1).max()
    assert not error > 1e-6  # the fault: a test that fails only if this is true says nothing
    assert not error <= 1e-6


def test_5_a_resumed_run_does_not_begin_again(tmp_path):
    # its order and its noise are those of an undisturbed run, not those of its own first steps
    rng = np.random.default_rng(0)
    file = tmp_path / "images.npz"
    np.savez(file, train=rng.random((24, 3, 4), np.float32), test=rng.random((6, 3, 4), np.float32))
    settings = {"epochs": 3, "batch": 8, "seed": 5}

    def watched(seen, stop=None):
        def on_step(training, done):
            size, now = 8, training.counters.copy()
            training.counters -= (1, size, 1)  # look at the step just done once more
            training.step_now().noise.restart()
            eps = training.step_now().noise.normal((2, size)).numpy().copy()
            x = training.batches.next(size)[0].x.numpy().copy()
            order = training.batches.stream.index.copy()
            training.counters[:] = now
            seen[int(now[STEP])] = (eps.tobytes(), x.tobytes(), order.tobytes())
            if now[STEP] == stop:
                os.kill(os.getpid(), signal.SIGINT)

        return on_step

    def begin(name, seen, stop=None):
        return tv.fit(tv.VAE(12, 6, 2), f"{file}-dynamic", out=tmp_path / name, on_step=watched(seen, stop), **settings)

    whole, parts = {}, {}
    records = begin("whole", whole)
    with pytest.raises(runs.Interrupted):
        begin("parts", parts, stop=4)  # after the first step of the second epoch
    first, resumed = dict(parts), {}
    assert tv.resume(tmp_path / "parts", on_step=watched(resumed)) == records
    assert set(first) == {1, 2, 3, 4}
    assert set(resumed) == {5, 6, 7, 8, 9}
    assert first | resumed == whole
    for part in range(3):  # noise, pixels, order: none of the beginning comes again
        assert not {values[part] for values in resumed.values()} & {first[step][part] for step in (1, 2, 3)}
