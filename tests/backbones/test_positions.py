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


@pytest.mark.parametrize(("h", "w"), [(4, 16), (16, 4), (2, 32), (8, 8)])
def test_a_rectangle_has_the_places_of_the_square_of_its_area_where_they_overlap(h, w):
    """Of 8 x 8 patches here: one centre, one step, and so the middle of the longer axis and all of the shorter."""
    rectangle = Interpolated.of((4 * h, 4 * w), patch_size=4)
    assert rectangle == Interpolated.of((32, 32), patch_size=4)
    for n, places in zip((h, w), rectangle(h, w), strict=True):
        assert places.tolist() == [i + (8 - n) / 2 for i in range(n)]
        assert set(range(8)) & set(places.tolist()) == set(places.tolist() if n <= 8 else range(8))


def test_patches_of_any_size_in_training_are_one_apart():
    for size in ((48, 64), (12, 20)):
        for axis in Interpolated.of(size, patch_size=4)(size[0] // 4, size[1] // 4):
            torch.testing.assert_close(axis.diff(), torch.ones(len(axis) - 1, dtype=torch.float64))


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
    encoding = PositionalEncoding(Interpolated(base=8, patch_size=2), (8, 8), 2, 16)
    assert encoding.state_dict() == {}
    torch.testing.assert_close(encoding(4, 4), encode(encoding.grid, 4, 4, 16).float())
    assert encoding(3, 6).shape == (18, 16)
    wide = PositionalEncoding(encoding.grid, (6, 12), 2, 16)
    assert wide.table.shape == (18, 16)
    torch.testing.assert_close(wide(3, 6), encoding(3, 6))
    torch.testing.assert_close(wide(6, 3), encoding(6, 3))  # as many patches, in another shape
    assert encoding.double()(3, 6).dtype == torch.float64
