import math

import pytest

from flowzoo.training.rate import Cosine, Linear, check_rate, factors


def test_linear_rises_then_falls_to_its_share() -> None:
    assert factors(Linear(warmup_steps=4, decay_to=0.5), 8) == [0.25, 0.5, 0.75, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5]
    assert factors(Linear(warmup_steps=0), 2) == [1.0, 1.0, 1.0]


def test_cosine_rises_then_falls_to_zero() -> None:
    values = factors(Cosine(warmup_steps=10), 100)
    assert values[:11] == sorted(values[:11])
    assert values[10:] == sorted(values[10:], reverse=True)
    assert max(values) == pytest.approx(1.0)
    assert values[100] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, True, "1", None])
def test_a_factor_is_a_finite_number(value: object) -> None:
    class Own:
        def factor(self, step: int, steps: int) -> object:
            return value if step == 3 else 1.0

    check_rate(Own(), 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"factor\(3, 4\) is .*; allowed is a finite number"):
        check_rate(Own(), 4)  # type: ignore[arg-type]
