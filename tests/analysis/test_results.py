from pathlib import Path

import pytest

from analysis.results import read


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("variant,fid,clip\n", "no rows"),
        ("name,FID,CLIP\nrf,1,0.2\n", "no column variant; it has name, FID, CLIP"),
        ("variant,fid,clip,steps\nrf,1,0.2,many\n", "line 2: steps is 'many'"),
        ("variant,fid,clip,seed\nrf,1,0.2,first\n", "seed is 'first'"),
        ("variant,fid,clip\nrf,1\n", "line 2: 2 cells where the header has 3"),
        ("variant,fid,clip\n,1,0.2\n", "variant is empty"),
        ("variant,fid,clip,fid\nrf,1,0.2,1\n", "column fid twice"),
        ("variant,fid,clip,steps\nrf,1,0.2,50\nrf,2,0.2,50.0\n", "two rows for rf, steps=50: .*line 2 and .*line 3"),
        ("variant,fid,clip,seed\nrf,1,0.2,0\nrf,2,0.2,0\n", "two rows for rf, seed 0"),
    ],
)
def test_a_bad_table_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(write(tmp_path / "scores.csv", text))


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ValueError, match="not a CSV file"):
        read(tmp_path / "scores.csv")


def test_settings_are_the_columns_present_in_one_spelling(tmp_path: Path) -> None:
    text = "\ufeffguidance, variant ,fid,clip,extra,steps\n5.0,rf,1,0.2,x,50\n5,v/cos,,nan,y,5e1\n"
    results = read(write(tmp_path / "scores.csv", text))
    assert results.columns == ("steps", "guidance")
    assert [row.setting for row in results.rows] == [("50", "5"), ("50", "5")]
    assert results.metrics == ("fid", "clip")
    assert [row.is_ranked(results.metrics) for row in results.rows] == [True, False]


def test_include_keeps_what_is_asked_for_and_names_what_is_unknown(tmp_path: Path) -> None:
    text = "variant,fid,clip,steps,weights\nrf,1,0.2,50,ema\nrf,1,0.2,5,ema\nrf,1,0.2,5,raw\n"
    results = read(write(tmp_path / "scores.csv", text))
    assert len(results.include({"steps": ["5.0"], "weights": ["ema"]}).rows) == 1
    with pytest.raises(ValueError, match="weights=both does not occur; weights has ema, raw"):
        results.include({"weights": ["both"]})
    with pytest.raises(ValueError, match="no such column"):
        results.include({"dataset": ["shapes"]})
