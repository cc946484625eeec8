"""Which protocols judge alike: a protocol also says by which autoencoder samples were decoded."""

import json
from collections.abc import Iterable

from flowzoo.runs.columns import config_columns
from flowzoo.runs.reading import RunFolder

_EVALUATION = ("evaluation.samples", "evaluation.reference", "evaluation.seed")


def alike(runs: Iterable[RunFolder]) -> dict[str, str]:
    """For each protocol of these runs one that stands for all that have the same extractor, references and samples.

    Scores of protocols that stand for the same one may be shown side by side, those of several autoencoders. A protocol
    of which no run says more than its name stands for itself.
    """
    first: dict[str, str] = {}
    found: dict[str, str] = {}
    for run in runs:
        for protocol, about in run.extractor.items():
            if protocol in found or not isinstance(about, dict):
                continue
            cells = config_columns(run.config)
            told = [{key: value for key, value in about.items() if key != "protocol"}, run.dataset]
            told.append({key: cells.get(key) for key in _EVALUATION})
            found[protocol] = first.setdefault(json.dumps(told, sort_keys=True), protocol)
    return found
