"""What this machine can do, and how long things take."""

from tinyvae.measure.profiles import Profile, profile

__all__ = ["Profile", "profile"]
