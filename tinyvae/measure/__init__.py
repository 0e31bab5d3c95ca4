"""Measuring time: of functions, of recorded programs and of training steps; and the peaks of this machine."""

from tinyvae.measure.profiles import Profile, profile

__all__ = ["Profile", "profile"]
