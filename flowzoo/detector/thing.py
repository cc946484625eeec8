"""What a detector sees in an image of the procedural world: a list of things."""

from dataclasses import dataclass

from flowzoo.data.scenes import COLOURS, SHAPES, SIZES, Scenes

COLOUR_NAMES = tuple(COLOURS)


@dataclass(frozen=True)
class Thing:
    """One object, in the words of captions; its middle in image widths, x to the right and y down."""

    form: str
    colour: str
    size: str
    x: float
    y: float


def things(scene: Scenes) -> list[list[Thing]]:
    """The true objects of each scene."""
    return [
        [
            Thing(
                SHAPES[scene.shape[i, j]],
                COLOUR_NAMES[scene.colour[i, j]],
                SIZES[scene.size[i, j]],
                *map(float, scene.center[i, j]),
            )
            for j in range(count)
        ]
        for i, count in enumerate(scene.count)
    ]
