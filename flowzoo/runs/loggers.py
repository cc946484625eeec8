"""Loggers beside metrics.jsonl, which is always written. Imported where a logger is made."""

import os
from typing import Any


def wandb(**options: Any) -> Any:
    """Lightning's WandbLogger; offline where neither an API key nor WANDB_MODE is set (`wandb sync` uploads later)."""
    from lightning.pytorch.loggers import WandbLogger
    from wandb import api

    return WandbLogger(offline="WANDB_MODE" not in os.environ and api.api_key is None, **options)
