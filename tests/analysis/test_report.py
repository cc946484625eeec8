import csv
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from altair.vegalite.v6.schema.core import Root
from made_up_runs import NAMES, PCA, PIXELS, write_run, write_sweep
from PIL import Image

from analysis.canvas import Canvas
from analysis.report import main, report
from analysis.thumbnails import thumbnails
from flowzoo.formulation import names
from flowzoo.runs.layout import TRIAL_END, TRIAL_START


class Elements(HTMLParser):
    """Tags with their attributes, and the text of the JSON scripts by id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.json: dict[str, str] = {}
        self._inside: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        self._inside = found.get("id") if found.get("type") == "application/json" else None

    def handle_endtag(self, tag: str) -> None:
        self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.json[self._inside] = self.json.get(self._inside, "") + data


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the made-up sweep, written once."""
    folder = tmp_path_factory.mktemp("report")
    write_sweep(folder / "runs")
    report([folder / "runs"], folder / "out")
    return folder / "out"


def test_the_page_loads_nothing_and_its_charts_are_valid_json(written: Path) -> None:
    text = (written / "report.html").read_text()
    page = Elements(text)
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#")), (tag, name, attributes[name])
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    assert any("default-src 'none'" in (a.get("content") or "") for t, a in page.tags if t == "meta")
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    specs = {a["data-spec"] for _, a in page.tags if "data-spec" in a}
    assert {i.removeprefix("s0-") for i in page.json} == {
        "map-0-0", "map-1-0", "scatter-0", "steps-0", "steps-1", "density-t", "density-snr", "loss",
    }  # fmt: skip
    assert specs == set(page.json)
    for spec in page.json.values():
        loaded = json.loads(spec)
        assert {"families", "needle"} <= {p["name"] for p in loaded["params"]}
        assert "url" not in loaded.get("data", {})


def test_every_variant_has_a_row_and_a_picture(written: Path) -> None:
    page = Elements((written / "report.html").read_text())
    rows = [a["data-variant"] for tag, a in page.tags if tag == "tr" and "data-variant" in a]
    pictures = [a["data-variant"] for tag, a in page.tags if tag == "figure" and "data-variant" in a]
    assert len(set(rows)) == 17  # ranked, unranked and in the table of runs
    assert len(pictures) == len(set(pictures)) == 14


def test_markdown_and_csv_say_the_same(written: Path) -> None:
    text = (written / "report.md").read_text()
    with (written / "ranking.csv").open() as file:
        ranking = list(csv.DictReader(file))
    assert len(ranking) == 17
    assert f"| {ranking[0]['variant']} | {float(ranking[0]['rank_all']):.2f} |" in text
    assert {row["dataset"] for row in ranking} == {"shapes"}
    assert "### Not ranked" in text
    with (written / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len([row for row in rows if row["fid"]]) == 14 * 18
    assert {row["status"] for row in rows} == {"done", "diverged", "failed", "running"}


HOSTILE = "<!--<script>&amp;</script><b>x|y"


def test_no_name_changes_the_page(tmp_path: Path) -> None:
    """`<!--<script>` would keep a script element open to the end of the page, whatever closes it."""
    folder = write_run(tmp_path / "runs", HOSTILE)
    (folder / "samples" / "prompts.txt").write_text(f"{HOSTILE}\n")
    (tmp_path / "study").mkdir()
    with open(tmp_path / "study" / "trials.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*TRIAL_START, "fid", "clip", *TRIAL_END, f'a "{HOSTILE}'])
        writer.writerows([[k, "done", 10 + k, 0.1 * k, f"rf-s0-{k:08x}", "", "", k] for k in range(3)])
    report([tmp_path / "runs", tmp_path / "study"], tmp_path / "out", title=HOSTILE)
    text = (tmp_path / "out" / "report.html").read_text()
    page = Elements(text)
    assert not [spec for spec in page.json.values() if set("<>&\u2028\u2029") & set(spec)]
    assert all(json.loads(spec) for spec in page.json.values())
    assert HOSTILE in [row["variant"] for row in json.loads(page.json["s0-scatter-0"])["datasets"]["rows"]]
    assert any(a.get("data-variant") == HOSTILE for _, a in page.tags)
    assert {a["data-spec"] for _, a in page.tags if "data-spec" in a} == set(page.json)
    assert "<!--" not in text.split("<script>")[0]
    assert "<b>x" not in text.split("<script>")[0]
    markdown = (tmp_path / "out" / "report.md").read_text()
    assert "\\<!--\\<script>&amp;\\</script>\\<b>x\\|y" in markdown
    assert not re.search(r"(?<!\\)<", markdown)


def test_sixty_one_variants_with_large_noisy_grids_fit_in_5_mb(tmp_path: Path) -> None:
    noise = Image.effect_noise((600, 300), 90).convert("RGB")
    noise.save(tmp_path / "noise.png")
    for name in names.TABLE:
        folder = write_run(tmp_path / "runs", name)
        shutil.copy(tmp_path / "noise.png", folder / "samples" / "grid.png")
    path = report([tmp_path / "runs"], tmp_path / "out").page
    assert path.stat().st_size < 5_000_000
    assert path.read_text().count("data:image/webp") == 61


def test_broken_pictures_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "grid.png").write_bytes(b"no picture")
    assert thumbnails({"rf": tmp_path / "grid.png"}, 1000) == {}


def test_unfinished_sweeps_have_a_report_too(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "rf", state="running")
    page = Elements(report([tmp_path / "runs"], tmp_path / "out").page.read_text())
    assert "s0-loss" in page.json
    assert "s0-scatter-0" not in page.json


def test_runs_that_were_stopped_while_they_were_scored(tmp_path: Path) -> None:
    for variant in ("rf", "v/cos"):
        folder = write_run(tmp_path / "runs", variant)
        status = json.loads((folder / "status.json").read_text())
        (folder / "status.json").write_text(json.dumps(status | {"state": "preempted"}))
    page = report([tmp_path / "runs"], tmp_path / "report").page.read_text()
    assert "no scores yet" in page


def test_what_is_included_is_all_there_is(tmp_path: Path) -> None:
    write_sweep(tmp_path / "runs")
    given = ["--include-variant", "rf*", "--include-weights", "ema", "--include-steps", "50"]
    assert main([str(tmp_path / "runs"), "-o", str(tmp_path / "out"), *given]) == 0
    with (tmp_path / "out" / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["weights"], row["steps"]) for row in rows} == {("ema", "50")}
    assert {row["variant"] for row in rows} == {name for name in NAMES if name.startswith("rf")}
    page = Elements((tmp_path / "out" / "report.html").read_text())
    shown = {str(a["data-variant"]) for _, a in page.tags if "data-variant" in a}
    assert shown == {*(row["variant"] for row in rows), "rf/mode(1.75)", "rf/lognorm(1.00,2.20)"}


def test_several_seeds_have_intervals_and_surfaces(tmp_path: Path) -> None:
    for seed in (0, 1):
        for name in NAMES[:4]:
            write_run(tmp_path / "runs", name, seed=seed)
    page = Elements(report([tmp_path / "runs"], tmp_path / "out").page.read_text())
    assert {"s0-intervals", "s0-attainment"} <= page.json.keys()


def test_a_report_beside_its_runs_is_no_run(tmp_path: Path) -> None:
    write_sweep(tmp_path / "runs")
    for folder in ("runs", "runs/report", "report"):
        report([tmp_path / "runs"], tmp_path / folder)
    results = [tmp_path / folder / "results.csv" for folder in ("runs", "runs/report", "report")]
    assert len({path.read_text() for path in results}) == 1


def test_mistakes_leave_nothing_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "absent"), "-o", str(tmp_path / "out")]) == 2
    assert "is not a folder of runs" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def dom_of(page: Path, tmp_path: Path, *options: str) -> str:
    """The page as a browser has made it."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium: the page is checked without a browser only")
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", f"--user-data-dir={tmp_path / 'profile'}",
        "--virtual-time-budget=8000", *options, "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=120).stdout


def test_a_browser_draws_every_chart(written: Path, tmp_path: Path) -> None:
    dom = dom_of(written / "report.html", tmp_path)
    assert dom.count('data-drawn="yes"') == 7  # the eighth is folded
    assert dom.count("<svg") >= 7


# Says in the page's title, once all is drawn, how many names a chart shows, and how many of them cover another.
COUNTED = """<script>setInterval(() => {
  const chart = document.querySelector('[data-spec="s0-scatter-0"][data-drawn="yes"]');
  if (!chart) return;
  const shown = [...chart.querySelectorAll(".names_marks text, .names_edge_marks text")]
    .filter((text) => text.style.visibility !== "hidden").map((text) => text.getBoundingClientRect());
  const over = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  const bad = shown.filter((a, i) => shown.slice(i + 1).some((b) => over(a, b)));
  document.title = `${shown.length} names, ${bad.length} cover another`;
}, 200);</script></body>"""


def test_names_in_a_chart_never_overlap(tmp_path: Path) -> None:
    for name in names.TABLE:
        folder = write_run(tmp_path / "runs", name, settings=[(50, 2.5)], weights=("ema",))
        with (folder / "results.csv").open() as file:
            (row,) = csv.DictReader(file)
        level = len(names.file_name(name))  # all on one front, and many close to one another
        row |= {"fid": str(20 + level / 1000), "clip": str(0.2 + level / 1e5)}
        with (folder / "results.csv").open("w") as file:
            writer = csv.DictWriter(file, list(row))
            writer.writeheader()
            writer.writerow(row)
    page = report([tmp_path / "runs"], tmp_path / "out").page
    page.write_text(COUNTED.join(page.read_text().rsplit("</body>", 1)))  # the chart library has this word, too
    title = re.search("<title>(.*?)</title>", dom_of(page, tmp_path))
    assert title
    assert re.fullmatch(r"[1-9]\d* names, 0 cover another", title[1])


def test_several_studies_begin_with_their_ends_and_are_folded(tmp_path: Path) -> None:
    for autoencoder in (PCA, PIXELS):
        for name in NAMES:
            write_run(tmp_path / "runs", name, autoencoder=autoencoder)
    page = report([tmp_path / "runs"], tmp_path / "out").page
    text = page.read_text()
    found = Elements(text)
    ids = [a["id"] for _, a in found.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"] for tag, a in found.tags if tag == "a"} == {"#s0", "#s1"}
    assert [(tag, a["id"]) for tag, a in found.tags if a.get("id") in ("overview", "s0", "s1")] == [
        *(("section", "overview"), ("details", "s0"), ("details", "s1"))
    ]
    assert "overview-map-0-1" in found.json
    markdown = (tmp_path / "out" / "report.md").read_text()
    assert markdown.index("## The best and the worst") < markdown.index("## shapes, pca-f4-c16")
    dom = dom_of(page, tmp_path)
    assert dom.count('data-drawn="yes"') == 2  # the others are drawn when they are opened
    page.write_text(text.replace("<details", "<details open"))
    dom = dom_of(page, tmp_path)
    assert dom.count('data-drawn="yes"') == len(found.json)


def test_every_chart_is_one_by_the_schema_of_vega_lite(sweep: Path, tmp_path: Path, monkeypatch) -> None:
    finish, made = Canvas.finish, []

    def recorded(*args, **options):
        made.append(finish(*args, **options))
        return made[-1]

    monkeypatch.setattr(Canvas, "finish", recorded)
    for seed in (1, 2):
        write_run(sweep, "rf", seed=seed)
    report([sweep], tmp_path / "report")
    assert len(made) > 3
    for specification in made:
        Root.validate(specification)


def test_without_a_home_folder(tmp_path: Path) -> None:
    """As for a user number that a container does not know."""
    write_run(tmp_path / "runs", "rf")
    unknown = "import pwd, sys; pwd.getpwuid = {}.__getitem__; from analysis.report import main; sys.exit(main())"
    env = {name: value for name, value in os.environ.items() if name != "HOME"}
    command = [sys.executable, "-c", unknown, str(tmp_path / "runs"), "-o", str(tmp_path / "out")]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# Saves every chart that is drawn as the buttons do, and says in the page's title what came of it.
SAVED = """<script>setTimeout(async () => {
  const drawn = [...document.querySelectorAll('.chart[data-drawn="yes"]')], wrong = [];
  for (const place of drawn) {
    const made = drawing(place), png = await picture(made);
    const bad = /currentColor|inherit|undefined|NaN/.test(made.text) || !made.width || png.size < 5000;
    if (bad) wrong.push(place.dataset.spec);
  }
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  document.title = `${drawn.length} saved, ${wrong.length} wrong ${wrong}, ${wide} px too wide`;
}, 4000);</script></body>"""


def test_charts_are_saved_by_their_buttons_and_the_page_fits_its_window(tmp_path: Path) -> None:
    for name in NAMES[:3]:
        for lr in (1e-3, 1e-2):
            write_run(tmp_path / "runs", name, lr=lr, settings=[(50, 2.5), (5, 2.5)], weights=("ema",))
    for i in range(8):
        write_run(tmp_path / "runs", "rf", dataset=f"photos_with_a_long_name_that_somebody_gave_them_{i}")
    page = report([tmp_path / "runs"], tmp_path / "out").page
    text = page.read_text()
    assert text.count('data-save="svg"') == text.count('class="chart"')
    page.write_text(SAVED.join(text.replace('<details id="s0">', '<details id="s0" open>').rsplit("</body>", 1)))
    title = re.search("<title>(.*?)</title>", dom_of(page, tmp_path, "--window-size=1200,900"))
    assert title
    assert re.fullmatch(r"[1-9]\d* saved, 0 wrong , 0 px too wide", title[1])


def test_swept_keys_are_in_the_page_the_markdown_and_the_rows(tmp_path: Path) -> None:
    for name in NAMES[:3]:
        for lr in (1e-3, 1e-2):
            write_run(tmp_path / "runs", name, lr=lr)
    page = report([tmp_path / "runs"], tmp_path / "out").page
    assert "swept-optimizer.lr" in Elements(page.read_text()).json
    assert "## Against optimizer.lr" in (tmp_path / "out" / "report.md").read_text()
    with (tmp_path / "out" / "results.csv").open() as file:
        assert {row["optimizer.lr"] for row in csv.DictReader(file)} == {"0.001", "0.01"}
    report([tmp_path / "runs"], tmp_path / "pooled", include={"variant": ["rf"]}, together=["sweep"])
    assert "optimizer.lr=0.01" in (tmp_path / "pooled" / "report.md").read_text()
