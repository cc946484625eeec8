"""What a detector sees in samples."""

from flowzoo.detector.detector import Detector
from flowzoo.detector.thing import Thing
from flowzoo.metrics.metric import Made


def seen(detector: Detector, made: Made) -> list[list[list[Thing]]]:
    """The things in the image of each variant and each prompt. A sample that is not finite shows nothing."""
    detector.to(made.images.device)
    things = iter(detector(made.images.flatten(0, 1)))
    finite = made.features.isfinite().all(-1).tolist()
    return [[image if there else [] for there, image in zip(row, things, strict=False)] for row in finite]
