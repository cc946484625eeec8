from pathlib import Path

import pytest
from made_up_runs import NAMES, write_run


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Fourteen variants done with one seed, one diverged, one failed, one still running."""
    folder = tmp_path / "runs" / "made_up"
    for name in NAMES:
        write_run(folder, name)
    write_run(folder, "edm(1.20,1.80)", state="diverged")
    write_run(folder, "rf/mode(1.75)", state="failed")
    write_run(folder, "rf/lognorm(1.00,2.20)", state="running")
    return folder
