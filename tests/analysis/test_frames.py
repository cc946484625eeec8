"""All rows as a data frame."""

import subprocess
import sys
from pathlib import Path

import pytest
from made_up_runs import write_run

from analysis import frame
from analysis.join import main as join


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    for lr in (1e-3, 1e-2):
        write_run(tmp_path / "rates", "rf", lr=lr)
    write_run(tmp_path / "rates", "edm(1.20,1.80)", state="diverged")
    write_run(tmp_path / "rates", "v/cos", state="running")
    return tmp_path / "rates"


def test_a_row_a_setting_with_the_swept_keys_as_numbers(sweep: Path) -> None:
    made = frame(sweep)
    assert len(made) == 2 * 18 + 1
    assert list(made.columns[:8]) == [
        "sweep", "run", "variant", "seed", "dataset", "representation", "backbone", "optimizer.lr",
    ]  # fmt: skip
    assert sorted(made["optimizer.lr"].unique()) == [0.001, 0.01]
    assert made["fid"].dtype == float
    assert made.groupby("status").size().to_dict() == {"diverged": 1, "done": 36}
    assert made[made.status == "diverged"].fid.isna().all()
    assert set(made["sweep"]) == {"rates"}


def test_further_keys_and_tables(sweep: Path, tmp_path: Path) -> None:
    assert join([str(tmp_path / "rows.csv.gz"), str(sweep)]) == 0
    folder, table = (frame(place, keys=["trainer.steps"]) for place in (sweep, tmp_path / "rows.csv.gz"))
    assert set(folder["trainer.steps"]) == set(table["trainer.steps"]) == {300}
    for name in ("optimizer.lr", "fid", "representation"):
        assert sorted(map(str, folder[name])) == sorted(map(str, table[name]))
    with pytest.raises(ValueError, match=r"trainer.step: no run has this key; allowed are .*trainer.steps"):
        frame(sweep, keys=["trainer.step"])


def test_the_name_costs_nothing_before_it_is_called() -> None:
    code = "import sys, analysis; assert not {'pandas', 'torch', 'altair', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
