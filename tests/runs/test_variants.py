"""`variant=` takes the paper's formulations with other numbers, and composes what the name says."""

import pytest
from omegaconf import OmegaConf

from flowzoo.formulation.names import variant_name
from flowzoo.runs.config import compose_jobs, config_loader


def test_other_numbers_compose_to_what_they_say() -> None:
    asked = [
        "rf_lognorm_2.50_1.40",
        "edm_0.30_1.00",
        "rf_mode_0.50",
        "edm_-1.20_1.20_sd-data",
    ]
    with config_loader() as loader:
        jobs = compose_jobs(loader, "train", [f"variant={','.join(asked)}"], multirun=True)
    assert [
        variant_name(*(OmegaConf.to_container(job[key], resolve=True) for key in ("path", "sampler"))) for job in jobs
    ] == [
        "rf/lognorm(2.50,1.40)",
        "edm(0.30,1.00)",
        "rf/mode(0.50)",
        "edm(-1.20,1.20,sigma_data=data)",
    ]


@pytest.mark.parametrize("name", ["x0_rf", "rf_mode_9.00", "rf_lognorm_1.00", "nothing"])
def test_others_are_refused(name: str) -> None:
    with config_loader() as loader, pytest.raises(Exception, match=f"Could not find 'variant/{name}'"):
        compose_jobs(loader, "train", [f"variant={name}"], multirun=False)


def test_a_glob_finds_the_paper_s_alone() -> None:
    with config_loader() as loader:
        compose_jobs(loader, "train", ["variant=rf_lognorm_2.50_1.40"], multirun=False)
        jobs = compose_jobs(loader, "train", ["variant=glob(rf_lognorm*)"], multirun=True)
    assert len(jobs) == 30
