from pathlib import Path

import pytest
from made_up_runs import write_sweep


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "made_up"
    write_sweep(folder)
    return folder
