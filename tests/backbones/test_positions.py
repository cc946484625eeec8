import pytest
import torch

from flowzoo.backbones.positions import Cropped, Interpolated, PositionalEncoding, encode


@pytest.mark.parametrize(
    ("side", "h", "w"), [(256, 16, 16), (512, 32, 32), (512, 44, 22), (384, 28, 20), (1024, 64, 64)]
)
def test_interpolated_is_the_papers_formula(side, h, w):
    """p = 0..n_max - 1 at (p - (n_max - s)/2) 256/S, centre-cropped, whatever n_max; S^2 the area, s = S/16."""
    side = 16 * (h * w) ** 0.5  # the bucket's own area, near S^2
    s = side / 16
    for n, axis in zip((h, w), Interpolated(base=256, patch_size=16)(h, w), strict=True):
        for n_max in (n, n + 2, n + 10):
            p = torch.arange(n_max, dtype=torch.float64)
            all_places = (p - (n_max - s) / 2) * 256 / side
            first = (n_max - n) // 2
            torch.testing.assert_close(axis, all_places[first : first + n])


def test_interpolated_at_its_base_counts_patches():
    rows, columns = Interpolated(base=32, patch_size=4)(8, 8)
    assert rows.tolist() == columns.tolist() == list(range(8))


def test_interpolated_keeps_its_centre_and_halves_its_step():
    grid = Interpolated(base=32, patch_size=4)
    for h, w in [(8, 8), (16, 16), (4, 16), (6, 5)]:
        for n, axis in zip((h, w), grid(h, w), strict=True):
            step = 8 / (h * w) ** 0.5
            torch.testing.assert_close(axis.diff(), torch.full((n - 1,), step, dtype=torch.float64))
            assert axis.mean().item() + step / 2 == pytest.approx(4)


def test_cropped_takes_the_middle():
    grid = Cropped(max_size=10, base=5)
    rows, columns = grid(4, 7)
    assert rows.tolist() == [1.5, 2.0, 2.5, 3.0]
    assert columns.tolist() == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5]
    with pytest.raises(ValueError, match=r"11 x 2 .*max_size=10"):
        grid(11, 2)


def test_encoding_is_sines_and_cosines_of_column_then_row():
    grid = Interpolated(base=8, patch_size=1)
    rows, columns = grid(3, 5)
    table = encode(grid, 3, 5, 8)
    for i in range(3):
        for j in range(5):
            x, y = columns[j].item(), rows[i].item()
            places = torch.tensor([x, x / 100, y, y / 100], dtype=torch.float64)
            sin, cos = places.sin(), places.cos()
            expected = torch.stack([sin[0], sin[1], cos[0], cos[1], sin[2], sin[3], cos[2], cos[3]])
            torch.testing.assert_close(table[5 * i + j], expected)


def test_table_is_stored_for_one_size_and_left_out_of_the_state():
    encoding = PositionalEncoding(Interpolated(base=8, patch_size=2), 4, 16)
    assert encoding.state_dict() == {}
    torch.testing.assert_close(encoding(4, 4), encode(encoding.grid, 4, 4, 16).float())
    assert encoding(3, 6).shape == (18, 16)
    assert encoding.double()(3, 6).dtype == torch.float64
