// Attention by vectors: queries that share keys go past a block of them together, so that what is read serves them all.
// Each query's sums go over k, and over positions, from left to right, whoever is beside it.
#pragma once

#include <cmath>

#include "step.h"

namespace {

constexpr int READERS = 4;         // queries that go together: their sums stay in registers
constexpr int NEAR = 16 * 1024;    // scores that a thread keeps at a time
constexpr int LANES = BLOCK / VEC; // vectors of a block's positions

// scores[row][0..BLOCK) = scale q k' for a block of keys, [k][position].
template <class Cache, int R>
inline void score_rows(const float* const* q, const typename Cache::Element* keys, int K, float scale, float* scores, int64_t stride) {
    vf found[R][LANES] = {};
    for (int i = 0; i < K; i++) {
        vf key[LANES];
#pragma GCC unroll 4
        for (int c = 0; c < LANES; c++) {
            key[c] = Cache::vector(keys + i * BLOCK + c * VEC);
            hold(key[c]);
        }
#pragma GCC unroll 4
        for (int r = 0; r < R; r++)
#pragma GCC unroll 4
            for (int c = 0; c < LANES; c++) found[r][c] = multiply_add(key[c], all(q[r][i]), found[r][c]);
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int c = 0; c < LANES; c++) store(scores + r * stride + c * VEC, found[r][c] * scale);
}

template <class Cache>
inline void score_block(const float* const* q, int rows, const typename Cache::Element* keys, int K, float scale, float* scores,
                        int64_t stride) {
    switch (rows) {
        case 1: return score_rows<Cache, 1>(q, keys, K, scale, scores, stride);
        case 2: return score_rows<Cache, 2>(q, keys, K, scale, scores, stride);
        case 3: return score_rows<Cache, 3>(q, keys, K, scale, scores, stride);
        default: return score_rows<Cache, 4>(q, keys, K, scale, scores, stride);
    }
}

// Scores become e^(score - the largest) at the positions [begin, end) and 0 at the others; what makes their sum 1.
inline float weigh(float* scores, int begin, int end, int width) {
    float best = scores[begin];
    for (int i = begin; i < end; i++) best = scores[i] > best ? scores[i] : best;
    for (int i = 0; i < begin; i++) scores[i] = -INFINITY;
    for (int i = end; i < width; i++) scores[i] = -INFINITY;
    vf totals = {};
    for (int i = 0; i < width; i += VEC) {
        const vf raw = load(scores + i) - best;
        const vf weight = raw < all(-87.0f) ? vf{} : exponential(raw);
        store(scores + i, weight);
        totals += weight;
    }
    return 1.0f / sum(totals);
}

// y[row][j..j + C VEC) += weights[row] times the values, [position][K], at the positions [from, to).
template <class Cache, int R, int C>
inline void add_columns(float* const* y, int j, const typename Cache::Element* values, int K, const float* weights, int64_t stride,
                        int from, int to) {
    vf sums[R][C];
#pragma GCC unroll 4
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int c = 0; c < C; c++) sums[r][c] = load(y[r] + j + c * VEC);
    for (int i = from; i < to; i++) {
        vf value[C];
#pragma GCC unroll 4
        for (int c = 0; c < C; c++) {
            value[c] = Cache::vector(values + i * K + j + c * VEC);
            hold(value[c]);
        }
#pragma GCC unroll 4
        for (int r = 0; r < R; r++)
#pragma GCC unroll 4
            for (int c = 0; c < C; c++) sums[r][c] = multiply_add(value[c], all(weights[r * stride + i]), sums[r][c]);
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int c = 0; c < C; c++) store(y[r] + j + c * VEC, sums[r][c]);
}

template <class Cache, int R>
inline void add_rows(float* const* y, const typename Cache::Element* values, int K, const float* weights, int64_t stride, int from,
                     int to) {
    constexpr int C = R > 2 ? 2 : 4;
    int j = 0;
    for (; j + C * VEC <= K; j += C * VEC) add_columns<Cache, R, C>(y, j, values, K, weights, stride, from, to);
    for (; j + VEC <= K; j += VEC) add_columns<Cache, R, 1>(y, j, values, K, weights, stride, from, to);
    for (; j < K; j++)
        for (int r = 0; r < R; r++)
            for (int i = from; i < to; i++) y[r][j] = multiply_add(Cache::one(values[i * K + j]), weights[r * stride + i], y[r][j]);
}

template <class Cache>
inline void add_values(float* const* y, int rows, const typename Cache::Element* values, int K, const float* weights, int64_t stride,
                       int from, int to) {
    switch (rows) {
        case 1: return add_rows<Cache, 1>(y, values, K, weights, stride, from, to);
        case 2: return add_rows<Cache, 2>(y, values, K, weights, stride, from, to);
        case 3: return add_rows<Cache, 3>(y, values, K, weights, stride, from, to);
        default: return add_rows<Cache, 4>(y, values, K, weights, stride, from, to);
    }
}

}  // namespace
