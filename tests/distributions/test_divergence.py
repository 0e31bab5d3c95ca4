"""Every closed KL divergence against its definition; what is not known is named."""

import numpy as np
import pytest
from integrals import member
from properties import check_divergence

from tinyvae.distributions import Bernoulli, Normal, has_closed_kl, kl, kl_per_dimension
from tinyvae.distributions.divergence import CLOSED_FORMS

PAIRS = list(CLOSED_FORMS)


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=[f"{q.__name__}-{p.__name__}" for q, p in PAIRS])
def test_every_closed_form(first, second):
    check_divergence(first, second)


WRONG = {
    "q and p exchanged": lambda right: lambda q, p: right(p, q), "half": lambda right: lambda q, p: 0.5 * right(q, p),
    "another constant": lambda right: lambda q, p: right(q, p) + 1e-6,
}  # fmt: skip


@pytest.mark.parametrize("fault", WRONG)
@pytest.mark.parametrize("family", [q for q, p in PAIRS if q is p])
def test_a_wrong_form_is_refused(monkeypatch, family, fault):
    monkeypatch.setitem(CLOSED_FORMS, (family, family), WRONG[fault](CLOSED_FORMS[family, family]))
    with pytest.raises(AssertionError):
        check_divergence(family, family)


def test_an_unknown_pair_is_named():
    q, p = member(Normal, 3), member(Bernoulli, 3)
    assert not has_closed_kl(q, p)
    for divergence in (kl, kl_per_dimension):
        with pytest.raises(TypeError, match=r"KL\(Normal \|\| Bernoulli\).*Normal/Normal.*elbo-a"):
            divergence(q, p)


def test_one_number_a_datum():
    q, p = (member(Normal, 3, rows=2, seed=seed) for seed in (0, 1))
    assert kl(q, p).shape == (2,)
    np.testing.assert_array_equal(kl(q, p).numpy(), kl_per_dimension(q, p).numpy().sum(-1))
