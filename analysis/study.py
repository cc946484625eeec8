"""What a report says about runs that compare: one data set, representation, backbone, protocol and training."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

from analysis.agreement import Agreement, agreement
from analysis.objectives import DEFAULT, Objective, about, listed
from analysis.paper import PAPER_RANKS, PAPER_SETTINGS, PROTOCOL, PaperRank
from analysis.partial import lacking, partial_scores
from analysis.ranked import noise
from analysis.ranking import Entry, Ranking, rank
from analysis.results import GROUP, Results, Row, apart, natural
from analysis.tables import Table
from analysis.words import flatten, lookup, number, say
from flowzoo.runs.columns import config_columns, swept
from flowzoo.runs.reading import RunFolder


@dataclass(frozen=True)
class Study:
    """The runs of one data set, backbone, protocol, training and sweep, their rows, and what follows from them."""

    key: tuple[str, ...]  # as `GROUP`
    runs: list[RunFolder]
    results: Results
    objectives: tuple[Objective, ...] = DEFAULT
    part: str = ""  # which of the seeds and variants, where the variants have not the same seeds
    more: Results | None = None  # with the seeds that only some of the variants have

    @property
    def title(self) -> str:
        seen = self.told("dataset") or "unknown data", self.told("representation")
        how = self.told("backbone") or "unknown backbone", self.told("training"), self.told("sweep"), self.part
        return ", ".join(filter(None, (*seen, *how)))

    def told(self, column: str) -> str:
        """What all runs have in a column of `GROUP`."""
        return self.key[GROUP.index(column)]

    @cached_property
    def ranking(self) -> Ranking:
        """An empty ranking where no run has scores yet."""
        try:
            return rank(self.results, self.objectives, self.more)
        except ValueError:
            variants = dict.fromkeys(run.variant for run in self.runs)
            lacks = self.partial_scores and self.lacking
            why = f"no {listed((o.label for o in self.lacking), 'or')}" if lacks else "no scores yet"
            metrics = self.results.shown([o.name for o in self.objectives])
            return Ranking([Entry(v, 0, 0, why, False) for v in variants], [], [], {}, {}, self.objectives, metrics)

    @property
    def unranked_because(self) -> str:
        """Why there is no ranking at all."""
        if not self.partial_scores:
            return "No run has scores yet."
        why = [self.extractor.get(f"no_{o.name}") or f"The rows have no {o.label}." for o in self.lacking]
        needs = listed(o.label for o in self.objectives)
        return " ".join([f"No ranking: it needs {needs} in one row.", *why, "Other scores, means over seeds:"])

    @cached_property
    def lacking(self) -> list[Objective]:
        return lacking(self.results, self.objectives)

    @cached_property
    def partial_scores(self) -> Table | None:
        """The scores that there are, where no row has all objectives."""
        found = partial_scores(self.results, self.objectives)
        return Table(found[0], found[1:]) if found else None

    def cell(self, setting: Sequence[str], column: str) -> str:
        columns = self.results.columns
        return setting[columns.index(column)] if column in columns else ""

    def label(self, setting: Sequence[str], without: Sequence[str] = ()) -> str:
        """A setting as people say it, less what is the same for all of them."""
        words = {"steps": "{} steps", "guidance": "guidance {}", "shift": "shift {}", "grid": "{} grid"}
        varying = [name for name in self._varying if name not in (*GROUP, *without)]
        order = sorted(varying, key=lambda name: ("steps", "guidance", "weights").index(name) if name in
                       ("steps", "guidance", "weights") else 9)  # fmt: skip
        said = [words.get(name, "{}").format(self.cell(setting, name)) for name in order if self.cell(setting, name)]
        return ", ".join(w.replace("ema", "EMA") for w in said) or "the only setting"

    @cached_property
    def _varying(self) -> list[str]:
        """Setting columns with several values."""
        values = zip(*self.ranking.settings, strict=True)
        return [name for name, own in zip(self.results.columns, values, strict=False) if len(set(own)) > 1]

    @cached_property
    def settings(self) -> list[tuple[str, ...]]:
        """The headline first: EMA weights, most steps, strongest guidance."""

        def order(setting: tuple[str, ...]) -> tuple[Any, ...]:
            steps, guidance = (natural(self.cell(setting, name))[1] for name in ("steps", "guidance"))
            return (self.cell(setting, "weights") != "ema", -steps, -guidance, setting)

        return sorted(self.ranking.settings, key=order)

    @cached_property
    def paper(self) -> dict[str, PaperRank]:
        """Table 1's ranks of the variants at hand."""
        return {e.variant: PAPER_RANKS[e.variant] for e in self.ranking.entries if e.variant in PAPER_RANKS}

    @cached_property
    def agreement(self) -> Agreement | None:
        """Of our order with Table 1's, over all settings."""
        return self.agreement_in("rank_all", "all")

    def agreement_in(self, ours: str, theirs: str) -> Agreement | None:
        """Of a rank of ours with one of the paper's, by the names of their fields."""
        pairs = [
            (rank, getattr(self.paper[entry.variant], theirs))
            for entry in self.ranking.ranked
            if entry.variant in self.paper and (rank := getattr(entry, ours)) is not None
        ]
        return agreement([own for own, _ in pairs], [other for _, other in pairs])

    def distinct(self, column: str) -> list[str]:
        """Values of a column among the rows that have scores."""
        rows = [row for row in self.results.rows if row.setting is not None and not row.is_baseline]
        return sorted({row.record[column] for row in rows if row.record.get(column)}, key=natural)

    def here(self, key: str) -> list[Any]:
        """Distinct values of a dotted config key over all runs."""
        values: list[Any] = []
        for run in self.runs:
            value = lookup(run.config, key)
            if value is not None and value not in values:
                values.append(value)
        return values

    @cached_property
    def extractor(self) -> dict[str, str]:
        """What extractor.json says of this protocol, from the first run that knows it, flattened."""
        protocol = self.told("protocol")
        return flatten(next((run.extractor[protocol] for run in self.runs if protocol in run.extractor), {}))

    @property
    def n_samples(self) -> list[int]:
        return [int(float(n)) for n in self.distinct("n_samples")]

    @cached_property
    def warnings(self) -> list[str]:
        said: list[str] = []
        dim, held_out = (
            next((int(v) for k, v in self.extractor.items() if k.split(".")[-1] == name and v.isdigit()), None)
            for name in ("dim", "n")
        )
        seen, own = self.extractor.get("quality.data"), self.told("dataset")
        if seen and own and seen != own:
            said.append(
                f"The network behind the scores was trained on {seen} and has not seen images like {own}: its scores "
                "compare variants poorly."
            )
        few = min([*self.n_samples, *([held_out] if held_out and self.n_samples else [])], default=0)
        for metric in self.ranking.metrics:
            known = about(metric)
            if told := self.extractor.get(f"no_{metric}"):
                said.append(told + ".")
            elif dim and few and few < known.samples * dim:
                kind = "samples" if few in self.n_samples else "held-out images"
                said.append(
                    f"{known.label} from {few:,} {kind} of {dim}-dimensional features (below {known.samples} times the "
                    "dimension) is biased upwards: compare within this report only."
                )
        if len(self.ranking.seeds) == 1 and not self.ranking.places:
            said.append(". ".join(["One seed: no intervals", *noise(self.ranking)]) + "; close ranks may well be ties.")
        if len(self.here("trainer.steps")) > 1:
            said.append(f"Runs differ in length: {', '.join(map(str, self.here('trainer.steps')))} steps.")
        return said

    @cached_property
    def protocol(self) -> list[tuple[str, str]]:
        """What was run, in words."""
        settings = self.ranking.settings
        lines = (
            [("Settings", f"{len(settings)}: {'; '.join(self.label(s) for s in self.settings)}")] if settings else []
        )
        solver = ", ".join(
            f"{word} {'/'.join(values)}" for word in ("rule", "grid", "shift") if (values := self.distinct(word))
        )
        samples = "/".join(f"{n:,}" for n in self.n_samples)
        ema = ["bias-corrected" if v else "plain" for v in self.here("ema.bias_correction")]
        facts = [
            ("Samples", f"{samples} a setting, from one start noise and prompts for all variants" if samples else ""),
            ("Sampling", solver),
            ("Scores", "; ".join(_described(o) for o in self.objectives)),
            ("Weights", ", ".join(w.replace("ema", "EMA") for w in self.distinct("weights"))),
            ("EMA", ", ".join(ema + [f"every {v} steps" for v in self.here("ema.every")]
                              + [f"decay {v}" for v in self.here("ema.decay")])),
            ("Training", ", ".join(form.format(say(v)) for form, key in (
                ("{} steps", "trainer.steps"), ("{} images a step", "trainer.batch_size"),
                ("learning rate {}", "optimizer.lr"), ("{} warm-up steps", "optimizer.warmup_steps"),
            ) for v in self.here(key))),
            ("Seeds", ", ".join(self.ranking.seeds)),
            ("Protocol", self.told("protocol")),
            ("Training images, by fingerprint", self.told("data")),
            ("GPU", self._said_by_runs("gpu")),
            ("Code", self._said_by_runs("code_version")),
        ]  # fmt: skip
        return [(name, text) for name, text in lines + facts if text]

    def _said_by_runs(self, key: str) -> str:
        """What their statuses say, each once."""
        return ", ".join(sorted({str(run.status[key]) for run in self.runs if run.status.get(key)}))

    @cached_property
    def deviations(self) -> Table:
        """The paper's protocol beside ours."""
        rows = []
        for item in PROTOCOL:
            values = [value for key in item.keys for value in self.here(key)]
            same = bool(item.same) and values == list(item.same)
            words = (item.words[bool(value)] if item.words else say(value) for value in values)
            told = item.form.format(", ".join(dict.fromkeys(words))) if values else ""
            rows.append((item.what, item.paper, "as in the paper" if same else told or "not recorded"))
        rows.append(("Features behind the scores", "CLIP L/14", self.extractor.get("identity.name", "not recorded")))
        n = len(self.ranking.settings)
        rows.append(("Settings ranked", PAPER_SETTINGS, f"{n} on one data set" if n else "none yet"))
        rows.append(("Variants ranked", "61", str(len(self.ranking.ranked))))
        return Table(("What", "Paper", "Here"), rows)

    @cached_property
    def baseline(self) -> Table | None:
        """The untrained network beside the variants, by setting less the weights."""
        untrained: dict[str, list[Row]] = defaultdict(list)
        for row in self.results.rows:
            if row.is_baseline and row.setting is not None and row.has(o.name for o in self.objectives):
                untrained[self.label(row.setting, without=("weights",))].append(row)
        rows = []
        for setting in (s for s in self.settings if self.cell(s, "weights") != "raw"):
            floor = untrained.get(self.label(setting, without=("weights",)), [])
            scored = self.ranking.scores[setting].values()
            if floor and scored:
                cells = [self.label(setting)]
                for o in self.objectives:
                    best_first = sorted((score.mean[o.name] for score in scored), key=lambda value: o.sign * value)
                    untrained_mean = fmean(row.scores[o.name] for row in floor)
                    cells += map(number, (untrained_mean, best_first[0], best_first[-1]))
                rows.append(cells)
        header = [word for o in self.objectives for word in (f"{o.label} untrained", "best", "worst")]
        return Table(("Setting", *header), rows) if rows else None

    @cached_property
    def status(self) -> Table:
        """One line a run: how far it came and how fast, and what it has otherwise than the others."""
        told = swept([config_columns(run.config) for run in self.runs])
        is_swept = any(told)
        rows = [
            (
                run.variant, *[own] * is_swept, run.seed, run.state,
                f"{run.status.get('step', '?')} / {run.status.get('steps', '?')}",
                f"{run.seconds:,.0f}" if run.seconds is not None else "",
                f"{run.images_per_s:,.0f}" if run.images_per_s else "",
                "; ".join(filter(None, [run.exception, *run.complaints()])),
            )
            for run, own in zip(self.runs, told, strict=True)
        ]  # fmt: skip
        header = ("Variant", *["Swept"] * is_swept, "Seed", "State", "Step", "Seconds", "Images/s", "Last word")
        return Table(header, rows)


def studies(runs: Sequence[RunFolder], results: Results, objectives: tuple[Objective, ...] = DEFAULT) -> list[Study]:
    """Split by `GROUP`. A run without scores joins every study that it may belong to."""
    by_folder = {str(run.path): run for run in runs}
    out: list[Study] = []
    for key, own in apart(results, GROUP):
        for part, some, more in _by_seeds(own):
            sources = dict.fromkeys(row.source for row in some.rows)
            out.append(Study(key, [by_folder[source] for source in sources], some, objectives, part, more))
    return out


def _by_seeds(results: Results) -> list[tuple[str, Results, Results | None]]:
    """The rows, where variants have different seeds first in the seeds of most of them, then of those that have all.

    With each the words that say which these are, and the rows that tell more of the noise.
    """
    variants: dict[str, set[str]] = defaultdict(set)
    for row in results.rows:
        if not row.is_baseline:
            variants[row.seed].add(row.variant)
    most, common = max(map(len, variants.values()), default=0), set[str]().union(*variants.values())
    common.intersection_update(*variants.values())
    wide = [seed for seed in variants if len(variants[seed]) == most]
    if len(wide) == len(variants):
        return [("", results, None)]

    def part(rows: list[Row]) -> Results:
        return Results(results.columns, results.metrics, rows)

    out: list[tuple[str, Results, Results | None]]
    out = [(_said(most, wide), part([row for row in results.rows if row.seed in wide]), results)]
    if len(common) > 1:
        some = [row for row in results.rows if row.variant in common]
        out.append((_said(len(common), variants), part(some), None))
    return out


def _said(variants: int, seeds: Iterable[str]) -> str:
    named = sorted(seeds, key=natural)
    return f"{variants} variants of seed{'s' * (len(named) > 1)} {listed(named)}"


def _described(objective: Objective) -> str:
    way = "down" if objective.direction == "min" else "up"
    return f"{' '.join(filter(None, (objective.label, about(objective.name).what)))} ({way})"


def shared_config(runs: Iterable[RunFolder]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Config keys that all runs agree on, and the values of those that they do not."""
    values: dict[str, list[str]] = defaultdict(list)
    for run in runs:
        for key, value in flatten(run.config).items():
            if value not in values[key]:
                values[key].append(value)
    same = {key: seen[0] for key, seen in values.items() if len(seen) == 1}
    return same, {key: seen for key, seen in values.items() if len(seen) > 1}
