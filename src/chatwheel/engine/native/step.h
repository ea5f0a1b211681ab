// What Python gives: a model, and the steps that it computes (see bindings.py).
#pragma once

#include <cstdint>

#include "vectors.h"

namespace {

struct F32 {
    typedef float Element;
    static vf vector(const float* p) { return load(p); }
    static float one(float x) { return x; }
    static float narrow(float x) { return x; }
};

struct BF16 {
    typedef uint16_t Element;
    static vf vector(const uint16_t* p) {
#if defined(__AVX512F__)
        const __m256i raw = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(raw), 16));
#elif defined(__AVX2__)
        const __m128i raw = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(raw), 16));
#else
        const vi wide = __builtin_convertvector(*reinterpret_cast<const vh_any*>(p), vi);
        return reinterpret_cast<vf>(wide << 16);
#endif
    }
    static float one(uint16_t x) {
        const uint32_t wide = static_cast<uint32_t>(x) << 16;
        float y;
        std::memcpy(&y, &wide, 4);
        return y;
    }
    static uint16_t narrow(float x) {  // to the nearest, of two the even one
        uint32_t bits;
        std::memcpy(&bits, &x, 4);
        return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    }
};

struct I8 {  // times a scale a row of the matrix
    typedef int8_t Element;
    static vf vector(const int8_t* p) {
#if defined(__AVX512F__)
        return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#elif defined(__AVX2__)  // GCC would convert number by number
        return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
#else
        return __builtin_convertvector(*reinterpret_cast<const vb_any*>(p), vf);
#endif
    }
    static float one(int8_t x) { return x; }
};

struct I4 {  // two a byte, times a scale a row and group of k
    typedef uint8_t Element;
};

}  // namespace

extern "C" {

// FLOAT32 is W[n][k]; others are in panels, [n / PANEL][k][PANEL], the last one filled up: INT8 with a scale a row; INT4, of
// which a byte holds output i (low) and i + VEC (high), with scales [n / PANEL][k / GROUP][PANEL]; or in tiles (tiles.h), with
// the same scales. bias may be null.
enum Kind { FLOAT32, BFLOAT16, INT8, INT4, BF16_TILES, INT8_TILES, INT4_TILES };
struct Matrix {
    const void* data;
    const float* scale;
    const float* bias;
    int32_t n, k, kind;
};

struct Layer {
    const float *input_norm, *post_norm, *q_norm, *k_norm;  // the last two may be null
    Matrix q, k, v, o, gate, up, down;
    int32_t window;  // positions that are seen, 0: all
};

struct Model {
    int32_t num_layers, hidden, heads, kv_heads, head_dim, intermediate, vocab;
    float eps;
    const float* final_norm;
    Matrix embedding, head;
    const Layer* layers;
};

// What an adapter adds to a matrix: B A x (Hu et al., 2021), its scale in B. a: [rank][k], b_t: B transposed, [rank][n].
struct Factors {
    const float *a, *b_t;
    int32_t rank;  // 0: nothing
};

struct AdaptedLayer {
    Factors q, k, v, o, gate, up, down;
};

// One step. T tokens of S sequences; of M of them (rows `out`) the final hidden states are wanted, of the first num_scored
// the logits too.
// Keys of a block are [head][head_dim][BLOCK], its values [head][BLOCK][head_dim], unless weights are in tiles
// (tile_attention.h); a layer is `layer_size` numbers, of fp32, or bf16 if `short_cache`.
struct Step {
    int32_t num_tokens, num_out, num_scored, table_width;
    const int32_t *tokens, *positions, *sequences, *tables, *out;
    const float *cos, *sin;  // [position][head_dim]
    void *keys, *values;
    int64_t layer_size;
    int32_t short_cache;
    float *hidden, *logits;
    const int32_t* adapter_of;             // of each sequence, -1 for none; null where there are none at all
    const AdaptedLayer* const* adapters;   // by number, then layer
    int32_t largest_rank;
};
}

namespace {

constexpr int BLOCK = 16;
constexpr int GROUP = 64;  // of k, that share a scale where numbers have four bits
static_assert(BLOCK % VEC == 0, "a block of keys is whole vectors");

}  // namespace
