from pathlib import Path

import pytest

from flowzoo.metrics.extractor import Extractor


@pytest.fixture(scope="session")
def extractor(random_clip: Path) -> Extractor:
    return Extractor(random_clip)
