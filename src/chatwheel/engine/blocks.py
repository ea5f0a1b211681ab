"""Who owns which block of the KV cache: counted, shared by content, forgotten last what was used last. No tensors.

A block holds the keys and values of BLOCK_SIZE positions. Blocks that are full of known tokens are published under a
key that stands for these tokens and all before them (`block_keys`), so that whoever begins alike shares them
(PagedAttention; Kwon et al., 2023). A block that nobody holds keeps its content until the room is needed.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence

BLOCK_SIZE = 16


def block_keys(tokens: Sequence[int], before: Sequence[bytes] = (), scope: bytes = b"") -> list[bytes]:
    """The keys of all full blocks of a sequence; those in `before` are known. scope: what else the numbers depend on,
    such as an adapter."""
    keys = list(before)
    for i in range(len(keys), len(tokens) // BLOCK_SIZE):
        content = array("q", tokens[i * BLOCK_SIZE : (i + 1) * BLOCK_SIZE]).tobytes()
        previous = keys[-1] if keys else scope
        keys.append(hashlib.blake2b(previous + content, digest_size=16).digest())
    return keys


class BlockPool:
    """So many blocks. Each is held by somebody, or cached (nobody's, with a content), or free: never two of them."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._free = list(range(num_blocks - 1, -1, -1))
        self._holders = [0] * num_blocks
        self._key_of: list[bytes | None] = [None] * num_blocks
        self._published: dict[bytes, int] = {}
        self._cached: OrderedDict[int, None] = OrderedDict()  # least recently used first

    @property
    def available(self) -> int:
        """Blocks that `take` can give."""
        return len(self._free) + len(self._cached)

    @property
    def held(self) -> int:
        """Blocks that somebody holds."""
        return self.num_blocks - self.available

    def find(self, keys: Sequence[bytes]) -> list[int]:
        """The blocks of the longest beginning of these keys that is here."""
        found: list[int] = []
        for key in keys:
            block = self._published.get(key)
            if block is None:
                break
            found.append(block)
        return found

    def share(self, blocks: Sequence[int]) -> None:
        """One more holder of each."""
        for block in blocks:
            if self._holders[block] == 0:
                del self._cached[block]
            self._holders[block] += 1

    def take(self, count: int) -> list[int]:
        """Blocks of one's own, their content unknown. Ask only for what is `available`."""
        assert count <= self.available, "blocks were taken that are not there"
        taken = []
        for _ in range(count):
            if self._free:
                block = self._free.pop()
            else:
                block, _ = self._cached.popitem(last=False)
                self._unpublish(block)
            self._holders[block] = 1
            taken.append(block)
        return taken

    def publish(self, block: int, key: bytes) -> None:
        """Says what a block holds. Where another block holds the same already, that one stays the known one."""
        if self._key_of[block] is None and key not in self._published:
            self._key_of[block] = key
            self._published[key] = block

    def release(self, blocks: Sequence[int]) -> None:
        """One holder less of each; give a sequence's blocks in order, so that its beginning is forgotten last."""
        for block in reversed(blocks):
            assert self._holders[block] > 0, "a block was released that nobody holds"
            self._holders[block] -= 1
            if self._holders[block]:
                continue
            if self._key_of[block] is None:
                self._free.append(block)
            else:
                self._cached[block] = None

    def forget(self) -> None:
        """What is cached is worth nothing any more: the weights have moved."""
        for block in self._published.values():
            self._key_of[block] = None
        self._published.clear()
        self._free += self._cached
        self._cached.clear()

    def _unpublish(self, block: int) -> None:
        key = self._key_of[block]
        if key is not None:
            del self._published[key]
            self._key_of[block] = None
