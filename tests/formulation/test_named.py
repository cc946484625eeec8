"""A formulation by its name is the one that its config builds."""

import pytest
import torch
from hydra.utils import instantiate

from flowzoo.formulation.formulation import Formulation
from flowzoo.formulation.named import formulation
from flowzoo.formulation.names import TABLE, file_name


@pytest.mark.parametrize("name", TABLE)
def test_each_of_the_paper_s(name: str) -> None:
    config = TABLE[name]
    path = config["path"]
    own = Formulation(instantiate(path["schedule"]), instantiate(path["target"]), instantiate(config["sampler"]))
    u = torch.linspace(0.01, 0.99, 7)
    for made in (formulation(name), formulation(file_name(name))):
        assert made.name == name
        for one, other in zip(vars(made.coefficients(u)).values(), vars(own.coefficients(u)).values(), strict=True):
            assert torch.equal(one, other)


def test_as_people_type_it() -> None:
    made = formulation("edm(-1.2,1.2)")
    assert (made.name, made.schedule.P_m, made.schedule.P_s) == ("edm(-1.20,1.20)", -1.2, 1.2)
    weighed = formulation("v/cos/min_snr(5)")
    assert weighed.coefficients(torch.tensor([0.1])).weight.item() < 1
    assert formulation("x0/rf/loss_eps(clip=100)").loss.clip == 100


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("rf/lognormal(0,1)", "is not the name of a formulation"),
        ("edm(0,1,sigma_data=data)", "allowed is a number"),
        ("rf/spectrum", "eigenvalues=data is known only where images are"),
    ],
)
def test_what_is_no_formulation(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        formulation(name)
