"""The one thing pyproject.toml cannot say: where the second package lives."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["tinyvae", "tinyvae.*"]), *find_packages("kernels")],
    package_dir={"tinyvae_kernels": "kernels/tinyvae_kernels"},
    package_data={"tinyvae": ["py.typed", "explorer/page/*.*", "explorer/page/*/*.js"],
                  "tinyvae_kernels": ["py.typed", "cuda/*.cu", "cuda/runtime/*.cu"]},
)
