from typing import NamedTuple
