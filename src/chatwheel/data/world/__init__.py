"""A small closed world in English and Chinese: what is to be learned, who asks, who writes, who ranks.

Everything here comes from a seed. The facts are true; people and villages in its stories are invented; its writers and
labellers are simulated and say so.
"""

from chatwheel.data.world.items import BEHAVIOURS, LANGUAGES, SIGNATURE, Item, Language, held_out
from chatwheel.data.world.streams import demonstrations, examination, is_examination, prompts

__all__ = [
    "BEHAVIOURS",
    "LANGUAGES",
    "SIGNATURE",
    "Item",
    "Language",
    "demonstrations",
    "examination",
    "held_out",
    "is_examination",
    "prompts",
]
