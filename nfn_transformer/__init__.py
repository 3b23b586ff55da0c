"""Transformer-NFN: learning on the weights of transformers (ICLR 2025, arXiv 2410.04209)."""

__version__ = "0.1.0"
