"""Rerun and extend the ablation of training formulations behind Stable Diffusion 3."""

import os

__version__ = "0.1.0"

# OpenMP's threads spin while they wait: two runs on the same cores slow each other down more than tenfold. Read when torch
# is imported, which is after this.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
