"""Rerun and extend the ablation of training formulations behind Stable Diffusion 3."""

__version__ = "0.1.0"
