"""What two scores must have in common before they may be compared, as one short hash."""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any


def protocol_hash(
    *,
    extractor: Mapping[str, Any],
    autoencoder: Mapping[str, Any],
    metrics: Sequence[Mapping[str, Any]],
    n_samples: int,
    reference: str,
    n_reference: int,
    prompts: Sequence[str],
    seed: int,
) -> str:
    """10 hex digits over all that moves a score and is no column of a result row.

    The solver's rule, grid, shift, steps and guidance are columns, and rows that differ in them are never ranked
    together, so they are left out: one protocol holds all settings of a study.

    Args:
        extractor: all that decides features: what it says of itself (name, weights' sha256, resize, dtype, dim), and
            its class with all parameters, `flowzoo.runs.identity.part_identity`.
        autoencoder: its class with all parameters. What is fitted to images or measured is left out: the training data,
            a column, decide it, and it is rounded otherwise on another machine.
        metrics: identities, in any order.
        reference, n_reference: fingerprint of the set that metrics compare with, and how many of its images.
        prompts: in order.
        seed: of the start noise.
    """
    ordered = sorted((dict(one) for one in metrics), key=lambda one: json.dumps(one, sort_keys=True))
    parts = [dict(extractor), dict(autoencoder), ordered, n_samples, reference, n_reference, list(prompts), seed]
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:10]
