import math
import subprocess
import sys

import pytest
import torch

from flowzoo.formulation.part import MODE_S_MAX
from flowzoo.formulation.schedule import EDM
from flowzoo.formulation.target import F
from flowzoo.formulation.timestep import LogitNormal, Mode

JUST_BELOW, JUST_ABOVE = math.nextafter(-1, -2), math.nextafter(MODE_S_MAX, 2)


@pytest.mark.parametrize("s", [-1, 0.0, MODE_S_MAX, torch.tensor([[-1.0], [MODE_S_MAX]]).double()])
def test_modes_limits_are_allowed(s: float) -> None:
    Mode(s)


@pytest.mark.parametrize("s", [JUST_BELOW, JUST_ABOVE, 2.0, math.nan, math.inf, "0.5", None, True])
def test_beyond_them_is_not(s: float) -> None:
    with pytest.raises(ValueError, match=r"sampler\.s = .*allowed: -1 <= s <= 2/\(pi-2\) = 1\.75"):
        Mode(s)


@pytest.mark.parametrize("bad", [0.0, -0.1, math.nan, math.inf, -math.inf])
def test_deviations_are_positive_and_finite(bad: float) -> None:
    with pytest.raises(ValueError, match=r"sampler\.s = .*> 0"):
        LogitNormal(0.0, bad)
    with pytest.raises(ValueError, match=r"path\.schedule\.P_s = .*> 0"):
        EDM(0.0, bad)
    with pytest.raises(ValueError, match=r"sigma_data = .*> 0"):
        F(bad)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_means_are_finite(bad: float) -> None:
    with pytest.raises(ValueError, match=r"sampler\.m"):
        LogitNormal(bad, 1.0)
    with pytest.raises(ValueError, match=r"path\.schedule\.P_m"):
        EDM(bad, 1.0)


def test_one_bad_variant_is_named() -> None:
    with pytest.raises(ValueError, match=r"sampler\.s = \[\[1\.0\], \[0\.0\]\]"):
        LogitNormal(0.0, torch.tensor([[1.0], [0.0]]))


def test_names_limits_and_packages_import_no_torch() -> None:
    code = "import sys, flowzoo.formulation.names, flowzoo.sampling; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
