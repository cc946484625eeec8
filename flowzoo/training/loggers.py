"""Loggers beside metrics.jsonl, which is always written. Imported where a logger is made."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowzoo.paths import ensure_home
from flowzoo.runs.store import Run


def wandb(*, save_dir: str, id: str, config: Mapping[str, Any], **options: Any) -> Any:
    """Lightning's WandbLogger; offline where there is neither WANDB_MODE nor a key (`wandb sync` uploads later).

    A run that goes on after an interruption has the same id, and W&B's step is the training step. Online, W&B goes on
    with the curve and passes over steps that it has. Offline each attempt is a folder of its own below
    `save_dir`/wandb, and syncing one may replace what was synced before: so each begins with what metrics.jsonl has of
    the attempts before it, and the newest has the whole curve.
    """
    ensure_home()  # wandb asks for it when it is imported
    import wandb as wb
    from lightning.pytorch.loggers import WandbLogger
    from lightning.pytorch.utilities import rank_zero_only

    class ByTrainingStep(WandbLogger):
        @rank_zero_only
        def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
            if self._experiment is None and mode != "online":
                for record in Run(save_dir).metrics():
                    if step is not None and record.get("step", step) < step:
                        self._log({k: v for k, v in record.items() if isinstance(v, int | float)}, record["step"])
            self._log(metrics, step)

        def _log(self, metrics: Mapping[str, float], step: int | None) -> None:
            self.experiment.log({**metrics, "trainer/global_step": step}, step=step)

        @rank_zero_only
        def finalize(self, status: str) -> None:
            if self._experiment is not None:
                self._experiment.finish(exit_code=0 if status == "success" else 1)

    Path(save_dir).mkdir(parents=True, exist_ok=True)
    # Not `offline=True`: Lightning then sets WANDB_MODE, which wandb has read by then.
    mode = os.environ.get("WANDB_MODE") or ("online" if wb.login(prompt=False, verify=False) else "offline")
    allowed = re.sub(r"[/\\#?%:]", "-", id)  # W&B refuses these
    # A W&B run of its own: another variant's may be open in this process, in the same stack for one.
    options |= {"config": dict(config), "reinit": "create_new"}
    return ByTrainingStep(save_dir=save_dir, mode=mode, id=allowed, **options)
