"""Weights in tiles, beside what `native/tiles.h` says of where each number is: on any processor, as they are only laid
out here."""

from __future__ import annotations

import pytest
import torch

from chatwheel.engine.native.runner import IN_TILES, _to_int4, _to_int8

WIDTH, GROUP = 32, 64
SHAPES = [(32, 32), (64, 96), (70, 100), (5, 40), (33, 64), (96, 200)]


def place(output: int, k: int, depth: int) -> tuple[int, int, int, int]:
    """The tile of a number, and in it the pair, the output, and which of the pair."""
    tile = (output // 32 * depth + k // 32) * 2 + output % 32 // 16
    return tile, k % 32 // 2, output % 16, k % 2


@pytest.mark.parametrize(("rows", "columns"), SHAPES)
@pytest.mark.parametrize("kind", ["bfloat16", "int8", "int4"])
def test_every_number_is_where_the_kernels_look(kind: str, rows: int, columns: int) -> None:
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows))
    stored, scale = IN_TILES[kind](weight, WIDTH, GROUP)
    depth = -(-columns // 32)
    tiles = 2 * depth * -(-rows // 32)
    if kind == "bfloat16":
        flat = stored.reshape(tiles, 16, 16, 2)  # [k / 2][output][k % 2]
    elif kind == "int8":
        flat = stored.reshape(tiles, 16, 2, 16).transpose(2, 3)  # [k / 2][k % 2][output]
    else:
        packed = stored.reshape(tiles, 16, 16).to(torch.int16) & 255
        halves = torch.stack([packed & 15, packed >> 4], -1)  # the even k low, the odd one high
        flat = torch.where(halves > 7, halves - 16, halves)
    expected, scales = {
        "bfloat16": lambda: (weight.bfloat16(), None),
        "int8": lambda: _to_int8(weight),
        "int4": lambda: _to_int4(weight, GROUP),
    }[kind]()
    for output in range(rows):
        found = torch.stack([flat[place(output, k, depth)] for k in range(columns)])
        assert torch.equal(found, expected[output].to(found.dtype)), output
    filled = torch.zeros(tiles, 16, 16, 2, dtype=torch.bool)
    for output in range(rows):
        for k in range(columns):
            filled[place(output, k, depth)] = True
    assert not flat[~filled].any(), "what is not there is zero"
    if kind == "int8":
        assert scale is not None
        assert torch.equal(scale[:rows], scales)
    if kind == "int4":
        assert scale is not None
        groups = -(-columns // GROUP)
        by_panel = scale.reshape(-1, groups, WIDTH)  # [output / 32][group][output % 32]
        for output in range(rows):
            assert torch.equal(by_panel[output // 32, :, output % 32], scales[output])
