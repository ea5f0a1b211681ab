// Products by tiles, where the processor has them (Intel AMX): 16 rows of 32 bf16 numbers times 32 rows of 16 are added to
// 16 x 16 sums of fp32 in one instruction. Within a tile it adds even and odd k apart and then together, tile by tile from left
// to right, whatever the other rows are: an answer still does not depend on what else is in the batch.
//
// A tile of weights has 16 outputs at 32 k, [k / 2][output][k % 2]; a matrix is [n / 32][k / 32][2] of them, filled up with
// zeros. Numbers of fewer bits stand in the same order ([k / 2][k % 2][output] within a tile) and are widened on the way.
#pragma once

#include <vector>

#include "step.h"

#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__linux__)
#define CHATWHEEL_TILES 1
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

constexpr int EDGE = 16;        // rows, and outputs, of a tile
constexpr int TILE_DEPTH = 32;  // k of a tile
constexpr int TILE = EDGE * TILE_DEPTH;
constexpr int TILE_PANEL = 2 * EDGE;

inline int round_up(int count, int unit) { return (count + unit - 1) / unit * unit; }

// Rows of bf16 numbers, filled up with zeros to whole tiles.
struct Narrow {
    std::vector<uint16_t> data;
    int stride = 0;

    void reserve(int rows, int width) {
        stride = round_up(width, TILE_DEPTH);
        const size_t size = static_cast<size_t>(round_up(rows, 2 * EDGE)) * stride;
        if (size > data.size()) data.resize(size);
    }
    uint16_t* row(int t) { return data.data() + static_cast<size_t>(t) * stride; }
    const uint16_t* row(int t) const { return data.data() + static_cast<size_t>(t) * stride; }
};

#if CHATWHEEL_TILES

// Linux lends tiles to a process that asks for them.
inline bool have_tiles() {
    constexpr int REQUEST = 0x1023, TILE_DATA = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    static const bool there = syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
    return there;
}

// What the eight tiles of a core are for: 0 to 3 are sums. In products 4 and 5 are rows, 6 and 7 weights. In attention 4 is
// queries, 5 keys, 6 weights of 16 positions and 7 the values there.
struct alignas(64) TileShapes {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t bytes[16];
    uint8_t rows[16];
};
constexpr TileShapes FOR_PRODUCTS = {1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
constexpr TileShapes FOR_ATTENTION = {1, 0, {}, {64, 64, 64, 64, 64, 64, 32, 64}, {16, 16, 16, 16, 16, 16, 16, 8}};

inline void begin_tiles(const TileShapes& shapes) { _tile_loadconfig(&shapes); }
inline void end_tiles() { _tile_release(); }

// What was stored is in memory before a tile is read: the instructions' own functions do not tell the compiler so.
inline void written() { asm volatile("" ::: "memory"); }

inline void narrow_row(const float* x, int size, uint16_t* y) {
    int i = 0;
    for (; i + VEC <= size; i += VEC)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(y + i), (__m256i)_mm512_cvtneps_pbh(load(x + i)));
    for (; i < size; i++) y[i] = BF16::narrow(x[i]);
    written();
}

// Widening ----------------------------------------------------------------------------------------------------------------

// Tiles of a panel at some k, as bf16.
template <class W>
struct Tiles;

template <>
struct Tiles<BF16> {
    static constexpr bool WIDE = true;
    const uint16_t* data;

    static Tiles of(const Matrix& m, int j, int k) {
        const int depth = round_up(m.k, TILE_DEPTH) / TILE_DEPTH;
        return {static_cast<const uint16_t*>(m.data) + (static_cast<int64_t>(j / TILE_PANEL) * depth + k / TILE_DEPTH) * 2 * TILE};
    }
    const uint16_t* tile(int i, uint16_t*) const { return data + i * TILE; }
};

template <>
struct Tiles<I8> {
    static constexpr bool WIDE = false;
    const int8_t* data;

    static Tiles of(const Matrix& m, int j, int k) {
        const int depth = round_up(m.k, TILE_DEPTH) / TILE_DEPTH;
        return {static_cast<const int8_t*>(m.data) + (static_cast<int64_t>(j / TILE_PANEL) * depth + k / TILE_DEPTH) * 2 * TILE};
    }
    // Whole numbers up to 127 are bf16 numbers: the upper halves of the same in fp32.
    const uint16_t* tile(int i, uint16_t* room) const {
        const int8_t* from = data + i * TILE;
        for (int pair = 0; pair < EDGE; pair++, from += 2 * EDGE) {
            const __m512i even = (__m512i)I8::vector(from), odd = (__m512i)I8::vector(from + EDGE);
            _mm512_store_si512(room + pair * 2 * EDGE, _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(even, 16), odd));
        }
        written();
        return room;
    }
};

template <>
struct Tiles<I4> {
    static constexpr bool WIDE = false;
    const uint8_t* data;
    const float* scales;  // [k / GROUP][TILE_PANEL]

    static Tiles of(const Matrix& m, int j, int k) {
        const int depth = round_up(m.k, TILE_DEPTH) / TILE_DEPTH, groups = (m.k + GROUP - 1) / GROUP;
        const int64_t panel = j / TILE_PANEL;
        return {static_cast<const uint8_t*>(m.data) + (panel * depth + k / TILE_DEPTH) * TILE,
                m.scale + (panel * groups + k / GROUP) * TILE_PANEL};
    }
    // A byte holds an output's number at an even k (low) and at the next (high).
    const uint16_t* tile(int i, uint16_t* room) const {
        const __m512 known = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1);
        const __m512 scale = load(scales + i / 2 / (GROUP / TILE_DEPTH) * TILE_PANEL + i % 2 * EDGE);
        const __m512i mixed = _mm512_setr_epi32(0x100000, 0x110001, 0x120002, 0x130003, 0x140004, 0x150005, 0x160006, 0x170007,
                                                0x180008, 0x190009, 0x1a000a, 0x1b000b, 0x1c000c, 0x1d000d, 0x1e000e, 0x1f000f);
        const uint8_t* from = data + i * (TILE / 2);
        for (int pair = 0; pair < EDGE; pair++, from += EDGE) {
            const __m512i both = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
            const __m512 even = _mm512_mul_ps(_mm512_permutexvar_ps(both, known), scale);
            const __m512 odd = _mm512_mul_ps(_mm512_permutexvar_ps(_mm512_srli_epi32(both, 4), known), scale);
            const __m512i apart = (__m512i)_mm512_cvtne2ps_pbh(odd, even);  // sixteen even, then sixteen odd
            _mm512_store_si512(room + pair * 2 * EDGE, _mm512_permutexvar_epi16(mixed, apart));
        }
        written();
        return room;
    }
};

// Products ----------------------------------------------------------------------------------------------------------------

constexpr int STRETCH = 512;  // of k: so much of all rows and of a panel stays in the nearer caches

// Where a thread keeps what it needs.
struct TileBench {
    alignas(64) float sums[4][EDGE][EDGE];
    alignas(64) uint16_t room[2 * STRETCH / TILE_DEPTH][TILE];
};

// What is done with 16 x 16 sums: y[row][j..] = or += sum (x scale) (+ bias).
inline void put_tile(const float (*sums)[EDGE], int rows, const Matrix& m, int j, bool add, bool with_bias, float* y, int64_t y_stride) {
    if (j >= m.n) return;
    const __mmask16 there = static_cast<__mmask16>((1u << (m.n - j < EDGE ? m.n - j : EDGE)) - 1);
    const bool scaled = m.kind == INT8_TILES, biased = m.bias && with_bias;
    const __m512 scale = scaled ? _mm512_maskz_loadu_ps(there, m.scale + j) : _mm512_setzero_ps();
    const __m512 bias = biased ? _mm512_maskz_loadu_ps(there, m.bias + j) : _mm512_setzero_ps();
    for (int row = 0; row < rows; row++) {
        float* to = y + row * y_stride + j;
        __m512 value = load(sums[row]);
        if (scaled) value = _mm512_mul_ps(value, scale);
        if (biased) value = _mm512_add_ps(value, bias);
        if (add) value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(there, to));
        _mm512_mask_storeu_ps(to, there, value);
    }
}

// Up to 16 rows times two panels: four sums at a time, so that none waits for itself.
template <class W>
inline void few_rows(const uint16_t* x, int stride, const Tiles<W>& left, const Tiles<W>& right, int depth, TileBench& bench) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int k = 0; k < depth; k++) {
        uint16_t(*room)[TILE] = &bench.room[4 * (k % 4)];
        _tile_loadd(4, x + k * TILE_DEPTH, stride * 2);
        _tile_loadd(6, left.tile(2 * k, room[0]), 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, left.tile(2 * k + 1, room[1]), 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(6, right.tile(2 * k, room[2]), 64);
        _tile_dpbf16ps(2, 4, 6);
        _tile_loadd(7, right.tile(2 * k + 1, room[3]), 64);
        _tile_dpbf16ps(3, 4, 7);
    }
    _tile_stored(0, bench.sums[0], 64);
    _tile_stored(1, bench.sums[1], 64);
    _tile_stored(2, bench.sums[2], 64);
    _tile_stored(3, bench.sums[3], 64);
}

// Up to 16, or up to 32 rows times a panel. Sums 0 and 1 are of the first 16 rows, 2 and 3 of the others; they go to
// sums[row / 16][output / 16], or, if y is given, straight there.
template <class W, bool MANY>
inline void panel_of_rows(const uint16_t* x, int stride, const Tiles<W>& panel, int depth, TileBench& bench, float* y = nullptr,
                          int64_t y_stride = 0) {
    _tile_zero(0);
    _tile_zero(1);
    if (MANY) _tile_zero(2);
    if (MANY) _tile_zero(3);
    for (int k = 0; k < depth; k++) {
        uint16_t(*room)[TILE] = &bench.room[2 * (k % 4)];
        _tile_loadd(6, panel.tile(2 * k, room[0]), 64);
        _tile_loadd(7, panel.tile(2 * k + 1, room[1]), 64);
        _tile_loadd(4, x + k * TILE_DEPTH, stride * 2);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        if (MANY) {
            _tile_loadd(5, x + EDGE * stride + k * TILE_DEPTH, stride * 2);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    if (MANY && y) {
        _tile_stored(0, y, y_stride * 4);
        _tile_stored(1, y + EDGE, y_stride * 4);
        _tile_stored(2, y + EDGE * y_stride, y_stride * 4);
        _tile_stored(3, y + EDGE * y_stride + EDGE, y_stride * 4);
        return;
    }
    _tile_stored(0, bench.sums[0], 64);
    _tile_stored(1, bench.sums[1], 64);
    if (MANY) _tile_stored(2, bench.sums[2], 64);
    if (MANY) _tile_stored(3, bench.sums[3], 64);
}

template <class W>
void all_tile_rows(const Narrow& x, int k, int rows, const Tiles<W>& panel, int depth, const Matrix& m, int j, bool add, bool last,
                   float* y, int64_t y_stride, TileBench& bench) {
    const bool plain = !add && !m.bias && m.kind == BF16_TILES && j + TILE_PANEL <= m.n;
    for (int first = 0; first < rows; first += 2 * EDGE) {
        const int some = rows - first < EDGE ? rows - first : EDGE, others = rows - first - EDGE < EDGE ? rows - first - EDGE : EDGE;
        float* to = y + first * y_stride;
        if (others == EDGE && plain) {
            panel_of_rows<W, true>(x.row(first) + k, x.stride, panel, depth, bench, to + j, y_stride);
            continue;
        }
        if (others > 0) {
            panel_of_rows<W, true>(x.row(first) + k, x.stride, panel, depth, bench);
        } else {
            panel_of_rows<W, false>(x.row(first) + k, x.stride, panel, depth, bench);
        }
        put_tile(bench.sums[0], some, m, j, add, last, to, y_stride);
        put_tile(bench.sums[1], some, m, j + EDGE, add, last, to, y_stride);
        put_tile(bench.sums[2], others, m, j, add, last, to + EDGE * y_stride, y_stride);
        put_tile(bench.sums[3], others, m, j + EDGE, add, last, to + EDGE * y_stride, y_stride);
    }
}

// y (rows x n) = or += x W' (+ bias), in the columns [begin, end), of which `begin` begins a panel.
template <class W>
void tile_product(const Narrow& x, int rows, const Matrix& m, int begin, int end, bool add, float* y, int64_t y_stride,
                  TileBench& bench) {
    for (int k = 0; k < m.k; k += STRETCH) {
        const bool last = k + STRETCH >= m.k, more = add || k > 0;
        const int depth = round_up(last ? m.k - k : STRETCH, TILE_DEPTH) / TILE_DEPTH;
        int j = begin;
        if (rows <= EDGE)
            for (; j + TILE_PANEL < end; j += 2 * TILE_PANEL) {
                few_rows<W>(x.row(0) + k, x.stride, Tiles<W>::of(m, j, k), Tiles<W>::of(m, j + TILE_PANEL, k), depth, bench);
                for (int i = 0; i < 4; i++) put_tile(bench.sums[i], rows, m, j + i * EDGE, more, last, y, y_stride);
            }
        for (; j < end; j += TILE_PANEL) {
            const Tiles<W> panel = Tiles<W>::of(m, j, k);
            if (Tiles<W>::WIDE || rows <= 2 * EDGE) {
                all_tile_rows<W>(x, k, rows, panel, depth, m, j, more, last, y, y_stride, bench);
            } else {
                for (int i = 0; i < 2 * depth; i++) panel.tile(i, bench.room[i]);
                all_tile_rows<BF16>(x, k, rows, {bench.room[0]}, depth, m, j, more, last, y, y_stride, bench);
            }
        }
    }
}

inline void product(const Narrow& x, int rows, const Matrix& m, int begin, int end, bool add, float* y, int64_t y_stride, TileBench& bench) {
    begin_tiles(FOR_PRODUCTS);
    if (m.kind == BF16_TILES) tile_product<BF16>(x, rows, m, begin, end, add, y, y_stride, bench);
    if (m.kind == INT8_TILES) tile_product<I8>(x, rows, m, begin, end, add, y, y_stride, bench);
    if (m.kind == INT4_TILES) tile_product<I4>(x, rows, m, begin, end, add, y, y_stride, bench);
}

#else

inline bool have_tiles() { return false; }

#endif

}  // namespace
