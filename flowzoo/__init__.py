"""Rerun and extend the ablation of training formulations behind Stable Diffusion 3."""

import os

__version__ = "0.1.0"

# OpenMP's threads spin while they wait. Two runs on the same cores then slow each other down more than tenfold; with a
# short spin a run alone loses a tenth, and two together a third. Read when torch is imported, which is after this.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")
