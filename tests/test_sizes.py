"""Sizes as configs say them."""

import pytest

from flowzoo.sizes import pair, patch_of


def test_a_size_is_an_edge_or_two() -> None:
    assert pair(32) == (32, 32)
    assert pair([48, 64]) == (48, 64)
    for wrong in (0, [1, 2, 3], [1], "32", [1.0, 2]):
        with pytest.raises(ValueError, match=r"image_size=.* is out of range"):
            pair(wrong)  # type: ignore[arg-type]


def test_a_token_is_four_pixels_or_a_latent() -> None:
    assert [patch_of(None, factor) for factor in (1, 2, 4, 8)] == [4, 2, 1, 1]
    assert patch_of(3, 4) == 3
