// y = x W' for a panel of W's rows, the outputs, at a time: its numbers stand k by k, all outputs of a k side by side, so
// that each output is summed in a lane of its own, over k from left to right.
#pragma once

#include <vector>

#include "step.h"

namespace {

constexpr int PANEL = 2 * VEC;
constexpr int DEPTH = 256;  // of k: that much of a panel stays in the first cache while all rows pass by
constexpr int ROWS = 6;     // that share what is read of a panel: their sums fill the registers

// A panel from some k on.
template <class W>
struct Panel {
    const typename W::Element* data;

    static Panel of(const Matrix& m, int j) { return {static_cast<const typename W::Element*>(m.data) + static_cast<int64_t>(j) * m.k}; }
    Panel from(int k) const { return {data + static_cast<int64_t>(k) * PANEL}; }
    void pair(int k, vf& a, vf& b) const {
        const auto* at = data + static_cast<int64_t>(k) * PANEL;
        a = W::vector(at);
        b = W::vector(at + VEC);
    }
};

template <>
struct Panel<I4> {
    const uint8_t* data;
    const float* scales;
    int first;

    static Panel of(const Matrix& m, int j) {
        const int64_t groups = (m.k + GROUP - 1) / GROUP;
        return {static_cast<const uint8_t*>(m.data) + static_cast<int64_t>(j) * m.k / 2, m.scale + j * groups, 0};
    }
    Panel from(int k) const { return {data, scales, first + k}; }
    void pair(int k, vf& a, vf& b) const {
        const int at = first + k;
        const float* scale = scales + static_cast<int64_t>(at / GROUP) * PANEL;
        const int8_t* bytes = reinterpret_cast<const int8_t*>(data) + static_cast<int64_t>(at) * VEC;
#if defined(__AVX512F__)
        const __m512i both = _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
        a = _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(both, 28), 28));
        b = _mm512_cvtepi32_ps(_mm512_srai_epi32(both, 4));
#elif defined(__AVX2__)
        const __m256i both = _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes)));
        a = _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(both, 28), 28));
        b = _mm256_cvtepi32_ps(_mm256_srai_epi32(both, 4));
#else
        const vi both = __builtin_convertvector(*reinterpret_cast<const vb_any*>(bytes), vi);
        a = __builtin_convertvector((both << 28) >> 28, vf);
        b = __builtin_convertvector(both >> 4, vf);
#endif
        a *= load(scale);
        b *= load(scale + VEC);
    }
};

// R rows of x times a panel, over `depth` k. The sums, [R][PANEL], go on where they were, or begin.
template <class W, int R>
void block(const float* x, int64_t x_stride, const Panel<W>& panel, int depth, bool begins, float* sums) {
    vf left[R], right[R];
#pragma GCC unroll 8
    for (int i = 0; i < R; i++) {
        left[i] = begins ? vf{} : load(sums + i * PANEL);
        right[i] = begins ? vf{} : load(sums + i * PANEL + VEC);
    }
    for (int k = 0; k < depth; k++) {
        vf a, b;
        panel.pair(k, a, b);
        hold(a);
        hold(b);
#pragma GCC unroll 8
        for (int i = 0; i < R; i++) {
            const vf row = all(x[i * x_stride + k]);
            left[i] = multiply_add(row, a, left[i]);
            right[i] = multiply_add(row, b, right[i]);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < R; i++) {
        store(sums + i * PANEL, left[i]);
        store(sums + i * PANEL + VEC, right[i]);
    }
}

// The same for any number of rows, in groups of about the same size.
template <class W>
void all_rows(const float* x, int64_t x_stride, int rows, const Panel<W>& panel, int depth, bool begins, float* sums) {
    for (int groups = (rows + ROWS - 1) / ROWS, first = 0; groups > 0; groups--) {
        const int size = (rows - first) / groups;
        const float* from = x + first * x_stride;
        float* to = sums + static_cast<int64_t>(first) * PANEL;
        switch (size) {
            case 1: block<W, 1>(from, x_stride, panel, depth, begins, to); break;
            case 2: block<W, 2>(from, x_stride, panel, depth, begins, to); break;
            case 3: block<W, 3>(from, x_stride, panel, depth, begins, to); break;
            case 4: block<W, 4>(from, x_stride, panel, depth, begins, to); break;
            case 5: block<W, 5>(from, x_stride, panel, depth, begins, to); break;
            default: block<W, 6>(from, x_stride, panel, depth, begins, to);
        }
        first += size;
    }
}

#if defined(__FMA__)
// Eight rows' numbers at eight k, turned: out[i] has those at the i-th.
inline void turn(const float* w, int64_t stride, __m256 out[8]) {
    __m256 rows[8], pairs[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        const float* from = w + i % 4 * stride + i / 4 * 4;
        rows[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(from)), _mm_loadu_ps(from + 4 * stride), 1);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        pairs[2 * i] = _mm256_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
        pairs[2 * i + 1] = _mm256_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++)
#pragma GCC unroll 2
        for (int j = 0; j < 2; j++) {
            out[4 * i + 2 * j] = _mm256_shuffle_ps(pairs[4 * i + j], pairs[4 * i + 2 + j], 0x44);
            out[4 * i + 2 * j + 1] = _mm256_shuffle_ps(pairs[4 * i + j], pairs[4 * i + 2 + j], 0xee);
        }
}
#endif

constexpr int LINE = 16;  // floats that memory gives at once

// The panel of the rows [first, first + PANEL) of W[n][k], at `depth` k; zeros for rows that are not there. `next`: how far
// away the rows are that are wanted afterwards; nothing else would fetch so many that lie so far from each other.
inline void make_panel(const float* w, int64_t stride, int rows, int depth, int64_t next, float* panel) {
    int k = 0;
#if defined(__FMA__)
    if (rows == PANEL)
        for (; k + LINE <= depth; k += LINE)
            for (int row = 0; row < PANEL; row += 8) {
#pragma GCC unroll 8
                for (int i = 0; i < 8; i++) __builtin_prefetch(w + (row + i) * stride + next + k);
                for (int part = 0; part < LINE; part += 8) {
                    __m256 turned[8];
                    turn(w + row * stride + k + part, stride, turned);
#pragma GCC unroll 8
                    for (int i = 0; i < 8; i++) _mm256_storeu_ps(panel + (k + part + i) * PANEL + row, turned[i]);
                }
            }
#else
    (void)next;
#endif
    for (; k < depth; k++)
        for (int i = 0; i < PANEL; i++) panel[k * PANEL + i] = i < rows ? w[i * stride + k] : 0.0f;
}

// One row times a panel that is not made for it: what is turned goes into the sums at once. How many k are done.
inline int one_row([[maybe_unused]] const float* x, [[maybe_unused]] const float* w, [[maybe_unused]] int64_t stride, [[maybe_unused]] int depth,
                   float* sums) {
    int k = 0;
#if defined(__FMA__)
    __m256 found[PANEL / 8] = {};
    for (; k + LINE <= depth; k += LINE)
#pragma GCC unroll 4
        for (int part = 0; part < PANEL / 8; part++) {
            const float* from = w + part * 8 * stride + k;
#pragma GCC unroll 8
            for (int i = 0; i < 8; i++) __builtin_prefetch(from + (PANEL + i) * stride);
#pragma GCC unroll 2
            for (int half = 0; half < LINE; half += 8) {
                __m256 turned[8];
                turn(from + half, stride, turned);
#pragma GCC unroll 8
                for (int i = 0; i < 8; i++)
                    found[part] = _mm256_fmadd_ps(_mm256_broadcast_ss(x + k + half + i), turned[i], found[part]);
            }
        }
#pragma GCC unroll 4
    for (int part = 0; part < PANEL / 8; part++) _mm256_storeu_ps(sums + part * 8, found[part]);
#else
    std::memset(sums, 0, PANEL * sizeof(float));
#endif
    return k;
}

// Where a thread keeps what it needs for a product; sums: a panel's, of all rows.
struct Bench {
    alignas(64) float panel[DEPTH * PANEL];
    std::vector<float> sums;
};

// What is done with the sums of a panel: y[row][j] = or += sum (x scale) (+ bias).
inline void put_panel(const float* sums, int rows, const Matrix& m, int j, bool add, float* y, int64_t y_stride) {
    const int width = m.n - j < PANEL ? m.n - j : PANEL;
    const bool scaled = m.kind == INT8;
    for (int row = 0; row < rows; row++, sums += PANEL, y += y_stride) {
        int i = 0;
        for (; i + VEC <= width; i += VEC) {
            vf value = load(sums + i);
            if (scaled) value *= load(m.scale + j + i);
            if (m.bias) value += load(m.bias + j + i);
            store(y + j + i, add ? load(y + j + i) + value : value);
        }
        for (; i < width; i++) {
            float value = sums[i];
            if (scaled) value *= m.scale[j + i];
            if (m.bias) value += m.bias[j + i];
            y[j + i] = add ? y[j + i] + value : value;
        }
    }
}

// fp32 stays where it is, W[n][k]; panels are made on the way.
inline void product_in_place(const float* x, int64_t x_stride, int rows, const Matrix& m, int begin, int end, bool add, float* y,
                             int64_t y_stride, Bench& bench) {
    const auto* w = static_cast<const float*>(m.data);
    for (int j = begin; j < end; j += PANEL) {
        const int width = m.n - j < PANEL ? m.n - j : PANEL;
        const float* panel = w + static_cast<int64_t>(j) * m.k;
        int k = rows == 1 && width == PANEL ? one_row(x, panel, m.k, m.k, bench.sums.data()) : 0;
        for (; k < m.k; k += DEPTH) {
            const int depth = m.k - k < DEPTH ? m.k - k : DEPTH;
            make_panel(panel + k, m.k, width, depth, static_cast<int64_t>(PANEL) * m.k, bench.panel);
            all_rows<F32>(x + k, x_stride, rows, {bench.panel}, depth, k == 0, bench.sums.data());
        }
        put_panel(bench.sums.data(), rows, m, j, add, y, y_stride);
    }
}

constexpr int FEW = 2 * ROWS;   // rows for which numbers are widened each time they are read
constexpr int TOGETHER = 4;     // panels of one row: a sum alone waits for itself

// Smaller types come as panels.
template <class W>
void product_of_panels(const float* x, int64_t x_stride, int rows, const Matrix& m, int begin, int end, bool add, float* y,
                       int64_t y_stride, Bench& bench) {
    float* sums = bench.sums.data();
    int j = begin;
    if (rows == 1)
        for (; j + TOGETHER * PANEL <= end; j += TOGETHER * PANEL) {
            const Panel<W> panels[TOGETHER] = {Panel<W>::of(m, j), Panel<W>::of(m, j + PANEL), Panel<W>::of(m, j + 2 * PANEL),
                                               Panel<W>::of(m, j + 3 * PANEL)};
            vf found[2 * TOGETHER] = {};
            for (int k = 0; k < m.k; k++) {
                const vf row = all(x[k]);
#pragma GCC unroll 4
                for (int p = 0; p < TOGETHER; p++) {
                    vf a, b;
                    panels[p].pair(k, a, b);
                    found[2 * p] = multiply_add(row, a, found[2 * p]);
                    found[2 * p + 1] = multiply_add(row, b, found[2 * p + 1]);
                }
            }
#pragma GCC unroll 4
            for (int p = 0; p < TOGETHER; p++) {
                store(sums, found[2 * p]);
                store(sums + VEC, found[2 * p + 1]);
                put_panel(sums, 1, m, j + p * PANEL, add, y, y_stride);
            }
        }
    for (; j < end; j += PANEL) {
        const Panel<W> panel = Panel<W>::of(m, j);
        if (rows <= FEW) {
            all_rows<W>(x, x_stride, rows, panel, m.k, true, sums);
        } else {
            for (int k = 0; k < m.k; k += DEPTH) {
                const int depth = m.k - k < DEPTH ? m.k - k : DEPTH;
                const Panel<W> part = panel.from(k);
                for (int i = 0; i < depth; i++) {
                    vf a, b;
                    part.pair(i, a, b);
                    store(bench.panel + i * PANEL, a);
                    store(bench.panel + i * PANEL + VEC, b);
                }
                all_rows<F32>(x + k, x_stride, rows, {bench.panel}, depth, k == 0, sums);
            }
        }
        put_panel(sums, rows, m, j, add, y, y_stride);
    }
}

// out[r] = A[r] x for the few rows of an adapter: eight at a time, each summed in lanes that are added by one tree.
inline void dots(const float* x, const float* a, int rank, int k, float* out) {
    constexpr int AT_ONCE = 8;
    for (int first = 0; first < rank; first += AT_ONCE) {
        const float* rows[AT_ONCE];
        for (int r = 0; r < AT_ONCE; r++) rows[r] = a + static_cast<int64_t>(first + r < rank ? first + r : first) * k;
        vf sums[AT_ONCE] = {};
        int i = 0;
        for (; i + VEC <= k; i += VEC) {
            vf some = load(x + i);
            hold(some);
#pragma GCC unroll 8
            for (int r = 0; r < AT_ONCE; r++) sums[r] = multiply_add(load(rows[r] + i), some, sums[r]);
        }
        float found[AT_ONCE];
        sum_four(sums[0], sums[1], sums[2], sums[3], found);
        sum_four(sums[4], sums[5], sums[6], sums[7], found + 4);
        for (; i < k; i++)
            for (int r = 0; r < AT_ONCE; r++) found[r] = multiply_add(rows[r][i], x[i], found[r]);
        for (int r = 0; r < AT_ONCE && first + r < rank; r++) out[first + r] = found[r];
    }
}

// y (rows x n) = or += x W', in the columns [begin, end), of which `begin` begins a panel.
inline void product(const float* x, int64_t x_stride, int rows, const Matrix& m, int begin, int end, bool add, float* y,
                    int64_t y_stride, Bench& bench) {
    if (m.kind == FLOAT32) product_in_place(x, x_stride, rows, m, begin, end, add, y, y_stride, bench);
    if (m.kind == BFLOAT16) product_of_panels<BF16>(x, x_stride, rows, m, begin, end, add, y, y_stride, bench);
    if (m.kind == INT8) product_of_panels<I8>(x, x_stride, rows, m, begin, end, add, y, y_stride, bench);
    if (m.kind == INT4) product_of_panels<I4>(x, x_stride, rows, m, begin, end, add, y, y_stride, bench);
}

}  // namespace
