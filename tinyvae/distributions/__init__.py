"""One file a family; `kl` is the table of closed forms."""

from tinyvae.distributions.base import Distribution, closed_form, kl, kl_per_dimension
from tinyvae.distributions.bernoulli import Bernoulli
from tinyvae.distributions.beta import Beta
from tinyvae.distributions.categorical import Categorical
from tinyvae.distributions.continuous_bernoulli import ContinuousBernoulli
from tinyvae.distributions.dirichlet import Dirichlet
from tinyvae.distributions.full_normal import FullNormal
from tinyvae.distributions.gamma import Gamma
from tinyvae.distributions.laplace import Laplace
from tinyvae.distributions.log_normal import LogNormal
from tinyvae.distributions.normal import GreyNormal, Normal
from tinyvae.distributions.poisson import Poisson
from tinyvae.distributions.stable import LogTensor, UnitTensor

__all__ = ["Bernoulli", "Beta", "Categorical", "ContinuousBernoulli", "Dirichlet", "Distribution", "FullNormal",
           "Gamma", "GreyNormal", "Laplace", "LogNormal", "LogTensor", "Normal", "Poisson", "UnitTensor", "closed_form",
           "kl", "kl_per_dimension"]
