"""The one thing pyproject.toml cannot say: where the second package lives."""

from setuptools import setup

setup(
    packages=[
        "tinyvae",
        "tinyvae.data",
        "tinyvae.distributions",
        "tinyvae.models",
        "tinyvae_kernels",
    ],
    package_dir={"tinyvae_kernels": "kernels/tinyvae_kernels"},
    package_data={"tinyvae": ["py.typed"], "tinyvae_kernels": ["py.typed", "cuda/*.cu"]},
)
