"""What is said of a scene: `terse`, as people write alt text, and `dense`, which names everything that can be seen.

Both are pure functions of the scene, natural lower-case English of at most 22 words (32 CLIP tokens with both ends).
"""

from collections.abc import Callable, Mapping

from flowzoo.data.scenes import COLOURS, GROUNDS, SHAPES, SIZES, TEXTURES, Scenes

_COLOURS, _GROUNDS = tuple(COLOURS), tuple(GROUNDS)
_NUMBERS = {2: "two", 3: "three"}
_COLUMNS = {-1: "left", 1: "right"}
_ROWS = {-1: "top", 1: "bottom"}
_BESIDE = {-1: "left of", 1: "right of"}
_OVER = {-1: "above", 1: "below"}


def dense(scene: Scenes, i: int) -> str:
    """Scene i: every object with colour, size, count, place or relation, and the ground."""
    count = int(scene.count[i])
    column, row = (int(d) for d in scene.direction[i])
    ground = _ground(scene, i)
    if scene.grouped[i]:
        things = f"{_NUMBERS[count]} {plural(_name(scene, i, 0))}"
        if count == 2:
            things += " side by side" if column else " one above the other"
        return f"{things} on {article(ground)}"
    objects = [article(_name(scene, i, j)) for j in range(count)]
    if count == 1:
        place = " ".join(words[d] for words, d in ((_ROWS, row), (_COLUMNS, column)) if d)
        where = f"at the {place}" if place else "in the center"
        return f"{objects[0]} {where} of {article(ground)}"
    if count == 2:
        relation = _BESIDE[column] if column else _OVER[row]
        return f"{objects[0]} {relation} {objects[1]} on {article(ground)}"
    # The article before the ground is left out here, which keeps the longest caption at 22 words.
    return f"{objects[0]} {_BESIDE[column]} {objects[1]} and {_OVER[row]} {objects[2]}, {ground}"


def terse(scene: Scenes, i: int) -> str:
    """Scene i: the main object, its attributes, the others and the ground often left out."""
    size, colour, second, medium, articled, ground = (float(w) for w in scene.wording[i])
    count = int(scene.count[i])
    name = _name(scene, i, 0, size=size < 0.15, colour=colour < 0.5)
    if scene.grouped[i]:
        text = plural(name)
        if second < 0.5:
            text = f"{_NUMBERS[count]} {text}"
    else:
        text = article(name) if articled < 0.6 or medium < 0.3 else name
        if count > 1 and second < 0.3:
            text += f" and {article(_name(scene, i, 1, size=False, colour=colour < 0.5))}"
    if medium < 0.3:
        text = f"{'picture' if medium < 0.15 else 'drawing'} of {text}"
    if ground < 0.15:
        text += f" on {_GROUNDS[scene.ground[i, 0]]}"
    return text


CHOICES: Mapping[str, tuple[Callable[[Scenes, int], str], ...]] = {
    "terse": (terse,),
    "dense": (dense,),
    "mix": (terse, dense),
}


def _name(scene: Scenes, i: int, j: int, *, size: bool = True, colour: bool = True) -> str:
    words = [SHAPES[scene.shape[i, j]]]
    if colour:
        words.insert(0, _COLOURS[scene.colour[i, j]])
    if size:
        words.insert(0, SIZES[scene.size[i, j]])
    return " ".join(words)


def plural(words: str) -> str:
    """`words` in the plural: crosses, hearts."""
    return words + ("es" if words.endswith("s") else "s")


def article(words: str) -> str:
    """`words` after a or an."""
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def _ground(scene: Scenes, i: int) -> str:
    first, second = (_GROUNDS[g] for g in scene.ground[i])
    texture = TEXTURES[scene.texture[i]]
    return f"{first} to {second} gradient" if texture == "gradient" else f"{texture} {first} background"
