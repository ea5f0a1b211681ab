"""A small closed world in English and Chinese: what is to be learned, who asks, who writes, who ranks.

Everything here comes from a seed. The facts are true; people and villages in its stories are invented; its writers and
labellers are simulated and say so.
"""

from chatwheel.data.world.card import dataset_card
from chatwheel.data.world.items import BEHAVIOURS, LANGUAGES, SIGNATURE, Item, Language, held_out
from chatwheel.data.world.labellers import LABELLERS, Labeller, rank
from chatwheel.data.world.prose import pretraining_documents, primer_documents
from chatwheel.data.world.showcase import showcase
from chatwheel.data.world.streams import demonstrations, examination, is_examination, prompts

__all__ = [
    "BEHAVIOURS",
    "LABELLERS",
    "LANGUAGES",
    "SHOWCASE",
    "SIGNATURE",
    "Item",
    "Labeller",
    "Language",
    "dataset_card",
    "demonstrations",
    "examination",
    "held_out",
    "is_examination",
    "pretraining_documents",
    "primer_documents",
    "prompts",
    "rank",
]

SHOWCASE: tuple[Item, ...]
"""Five prompts of the examination, in both languages, that show what the assistant can do."""


def __getattr__(name: str) -> tuple[Item, ...]:
    # Built when asked for: nothing runs at import.
    if name == "SHOWCASE":
        return showcase()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
