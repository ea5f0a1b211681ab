// Attention by tiles: up to 16 queries that share keys at a time, be they of neighbouring tokens or of the heads of a group.
//
// A block of keys is a tile for 32 numbers of a head, [k / 2][position][k % 2]; a block of values a half tile for 16,
// [position / 2][k][position % 2]. Scores go over k, and what is read over positions, from left to right; where a query
// does not see, its weight is an exact zero. So it does not matter which queries are together.
#pragma once

#include <cmath>

#include "tiles.h"

namespace {

#if CHATWHEEL_TILES

// Where a thread keeps what it needs.
struct TileReading {
    std::vector<float> scores;       // [EDGE][positions]
    std::vector<uint16_t> weights;   // the same
    Narrow queries;
    std::vector<uint16_t> row;       // a key or a value
    alignas(64) float read[4][EDGE][EDGE];

    void reserve(int positions, int head_dim) {
        const size_t size = static_cast<size_t>(EDGE) * positions;
        if (size > scores.size()) scores.resize(size), weights.resize(size);
        queries.reserve(EDGE, head_dim);
        if (row.empty()) row.resize(round_up(head_dim, TILE_DEPTH));
    }
};

// What a sequence's queries read of a key head: the blocks [begin, end) of its table.
struct CachedHead {
    const uint16_t *keys, *values;  // of this layer and head
    const int32_t* table;
    int64_t block_stride;
    int begin, end;

    const uint16_t* keys_of(int block) const { return keys + table[block] * block_stride; }
    const uint16_t* values_of(int block) const { return values + table[block] * block_stride; }
};

// Scores of all queries at all blocks, four at a time, so that no sum waits for itself.
inline void score_blocks(TileReading& r, const CachedHead& head, int head_dim, int stride) {
    written();
    const int depth = round_up(head_dim, TILE_DEPTH) / TILE_DEPTH;
    for (int b = head.begin; b < head.end; b += 4) {
        const int count = head.end - b;
        const uint16_t* keys[4];
        for (int i = 0; i < 4; i++) keys[i] = head.keys_of(i < count ? b + i : b);
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int k = 0; k < depth; k++) {
            _tile_loadd(4, r.queries.row(0) + k * TILE_DEPTH, r.queries.stride * 2);
            _tile_loadd(5, keys[0] + k * TILE, 64);
            _tile_dpbf16ps(0, 4, 5);
            if (count < 2) continue;
            _tile_loadd(5, keys[1] + k * TILE, 64);
            _tile_dpbf16ps(1, 4, 5);
            if (count < 3) continue;
            _tile_loadd(5, keys[2] + k * TILE, 64);
            _tile_dpbf16ps(2, 4, 5);
            if (count < 4) continue;
            _tile_loadd(5, keys[3] + k * TILE, 64);
            _tile_dpbf16ps(3, 4, 5);
        }
        float* to = r.scores.data() + (b - head.begin) * BLOCK;
        _tile_stored(0, to, stride * 4);
        if (count > 1) _tile_stored(1, to + BLOCK, stride * 4);
        if (count > 2) _tile_stored(2, to + 2 * BLOCK, stride * 4);
        if (count > 3) _tile_stored(3, to + 3 * BLOCK, stride * 4);
    }
}

// Weights of one query, whose scores at [begin, end) of `size` positions it sees; the inverse of their sum.
inline float weigh_row(const float* scores, uint16_t* weights, int begin, int end, int size, float scale) {
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const auto seen = [&](int i) {
        const __m512i at = _mm512_add_epi32(lanes, _mm512_set1_epi32(i));
        return static_cast<__mmask16>(_mm512_cmpge_epi32_mask(at, _mm512_set1_epi32(begin)) &
                                      _mm512_cmplt_epi32_mask(at, _mm512_set1_epi32(end)));
    };
    const int first = begin / VEC * VEC;
    __m512 best = _mm512_set1_ps(-INFINITY);
    for (int i = first; i < end; i += VEC) best = _mm512_mask_max_ps(best, seen(i), best, load(scores + i));
    const float top = _mm512_reduce_max_ps(best);
    vf totals = {};
    for (int i = 0; i < size; i += VEC) {
        vf weight = {};
        if (i >= first && i < end) {
            const vf raw = (load(scores + i) - top) * scale;
            const vf found = raw < all(-87.0f) ? vf{} : exponential(raw);
            weight = _mm512_maskz_mov_ps(seen(i), found);
            totals += weight;
        }
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(weights + i), (__m256i)_mm512_cvtneps_pbh(weight));
    }
    return 1.0f / sum(totals);
}

// What all queries read of 64 numbers of a head, from `at` on.
inline void read_values(TileReading& r, const CachedHead& head, int head_dim, int at, int stride) {
    written();
    const int parts = round_up(head_dim - at, TILE_DEPTH) / EDGE;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int b = head.begin; b < head.end; b++) {
        const uint16_t* values = head.values_of(b) + at * BLOCK;
        _tile_loadd(6, r.weights.data() + (b - head.begin) * BLOCK, stride * 2);
        _tile_loadd(7, values, 64);
        _tile_dpbf16ps(0, 6, 7);
        _tile_loadd(7, values + EDGE * BLOCK, 64);
        _tile_dpbf16ps(1, 6, 7);
        if (parts < 3) continue;
        _tile_loadd(7, values + 2 * EDGE * BLOCK, 64);
        _tile_dpbf16ps(2, 6, 7);
        _tile_loadd(7, values + 3 * EDGE * BLOCK, 64);
        _tile_dpbf16ps(3, 6, 7);
    }
    _tile_stored(0, r.read[0], 64);
    _tile_stored(1, r.read[1], 64);
    _tile_stored(2, r.read[2], 64);
    _tile_stored(3, r.read[3], 64);
}

// A token's key, into the block where it stands at `at`. Others may write their positions meanwhile.
inline void keep_key(const uint16_t* k, int head_dim, int at, uint16_t* keys) {
    for (int i = 0; i < head_dim; i += 2) std::memcpy(keys + i * BLOCK + 2 * at, k + i, 2 * sizeof(uint16_t));
}

// Its value, the same way: k of a pair of positions stand beside each other.
inline void keep_value(const uint16_t* v, int head_dim, int at, uint16_t* values) {
    for (int i = 0; i < head_dim; i += EDGE) {
        const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(v + i)));
        uint16_t* to = values + i * BLOCK + at / 2 * 2 * EDGE;
        _mm512_mask_storeu_epi16(to, at % 2 ? 0xaaaaaaaa : 0x55555555, at % 2 ? _mm512_slli_epi32(wide, 16) : wide);
    }
}

// What is behind the last position of a block must be numbers: a weight of zero does not hide what is none.
inline void clear_behind(int head_dim, int at, uint16_t* values) {
    for (int i = 0; i < head_dim; i += EDGE)
        for (int pair = at / 2; pair < BLOCK / 2; pair++) {
            const __mmask32 behind = pair > at / 2 ? 0xffffffff : at % 2 ? 0 : 0xaaaaaaaa;
            _mm512_mask_storeu_epi16(values + i * BLOCK + pair * 2 * EDGE, behind, _mm512_setzero_si512());
        }
}

#endif

}  // namespace
