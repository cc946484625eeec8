"""Loggers beside metrics.jsonl, which is always written. Imported where a logger is made."""

import os
from pathlib import Path
from typing import Any


def wandb(*, save_dir: str, **options: Any) -> Any:
    """Lightning's WandbLogger; offline where there is neither WANDB_MODE nor a key (`wandb sync` uploads later)."""
    import wandb as wb
    from lightning.pytorch.loggers import WandbLogger

    wb.finish()  # of the variant before in the same process; Lightning would go on writing into its run
    Path(save_dir).mkdir(parents=True, exist_ok=True)
    # Not `offline=True`: Lightning then sets WANDB_MODE, which wandb has read by then.
    mode = os.environ.get("WANDB_MODE") or ("online" if wb.login(prompt=False, verify=False) else "offline")
    return WandbLogger(save_dir=save_dir, mode=mode, **options)
