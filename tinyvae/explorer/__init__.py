"""The explorer: a trained model in one HTML page, which a browser opens without a server."""

from tinyvae.explorer.writing import explore

__all__ = ["explore"]
