"""One file a family; `kl` is the table of closed forms."""

from tinyvae.distributions.base import Distribution, closed_form, kl, kl_per_dimension
from tinyvae.distributions.bernoulli import Bernoulli
from tinyvae.distributions.continuous_bernoulli import ContinuousBernoulli
from tinyvae.distributions.normal import GreyNormal, Normal

__all__ = ["Bernoulli", "ContinuousBernoulli", "Distribution", "GreyNormal", "Normal", "closed_form", "kl",
           "kl_per_dimension"]
