"""One real SLURM a session; where there can be none its tests are skipped, and said to be."""

import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import cluster
import pytest


@pytest.fixture(scope="session")
def slurm() -> Iterator[None]:
    folder = Path(f"/tmp/fz-{os.getpid()}")  # short: unix sockets lie in it
    try:
        cluster.up(folder, port=17000 + 4 * (os.getpid() % 4000), grace=5)
    except cluster.Unavailable as error:
        if os.environ.get("FLOWZOO_SLURM") == "required":
            pytest.fail(f"SLURM could not be brought up: {error}")
        warnings.warn(f"no test on a real SLURM ran: {error}", stacklevel=1)
        pytest.skip(f"SLURM could not be brought up: {error}")
    yield
    cluster.down(folder)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A sweep of three small runs, as a file of its own."""
    return Path(shutil.copy(Path(__file__).with_name("small.yaml"), tmp_path))
