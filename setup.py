"""Packaging: `pip install -r requirement.txt` (the tested versions), then `pip install -e .`."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "nfn_transformer/__init__.py").read_text())[1]

setup(
    name="nfn-transformer",
    version=VERSION,
    description="Transformer-NFN: learning on the weights of transformers (ICLR 2025)",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="MIT",
    packages=find_packages(include=["nfn_transformer", "nfn_transformer.*"]),
    python_requires=">=3.11",
    install_requires=[
        "torch>=2.13.0,<3",
        "jaxtyping>=0.3.2",
        "numpy>=2.0",
        "scipy>=1.13",
        "scikit-learn>=1.5",
        "torch_geometric>=2.6",
        "safetensors>=0.8",
        "tqdm>=4.60",
        "matplotlib>=3.8",
        "xgboost>=3.0",
        "lightgbm>=4.5",
        "pyyaml>=6.0",
    ],
    extras_require={"wandb": ["wandb>=0.20"], "slurm": ["submitit>=1.5"]},
)
