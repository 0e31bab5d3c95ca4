"""Generative models with their inference models."""

from tinyvae.models.vae import VAE

__all__ = ["VAE"]
