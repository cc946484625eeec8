"""A target of your own: the drift towards the data, as papers whose time runs from noise to data predict it."""

from torch import Tensor

from flowzoo.formulation.schedule import State
from flowzoo.formulation.target import Target


class ToData(Target):
    """y = -(da x0 + db eps), the velocity with the other sign: on rf x0 - eps (Ma et al. 2024, SiT)."""

    def row(self, s: State) -> tuple[Tensor, Tensor]:
        return -s.da, -s.db
