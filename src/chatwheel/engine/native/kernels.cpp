// The decoder's forward pass on CPUs: one call a step, all threads in step with each other.
//
// Every number is computed in an order that depends on its own row alone: a product is summed over k from left to right
// whatever the number of rows beside it, and attention goes over positions from left to right. So an answer
// does not depend on what else is in the batch, on how its prompt was cut into chunks, or on the number of threads.
//
// Weights of fp32 stay where they are, in the trainer's own memory; copies in smaller types come in panels (see below).

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int VEC = 16;
#elif defined(__AVX__)
constexpr int VEC = 8;
#else
constexpr int VEC = 4;
#endif

typedef float vf __attribute__((vector_size(VEC * 4)));
typedef float vf_any __attribute__((vector_size(VEC * 4), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(VEC * 4)));
typedef uint16_t vh_any __attribute__((vector_size(VEC * 2), aligned(2), may_alias));
typedef int8_t vb_any __attribute__((vector_size(VEC), aligned(1), may_alias));

inline vf load(const float* p) { return *reinterpret_cast<const vf_any*>(p); }
inline void store(float* p, vf v) { *reinterpret_cast<vf_any*>(p) = v; }
inline vf all(float x) { return x - vf{}; }

// a b + c in one rounding. Written out, and the compiler forbidden to join others (-ffp-contract=off): it would do so in
// some copies of a loop and not in others.
inline vf multiply_add(vf a, vf b, vf c) {
#if defined(__AVX512F__)
    return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__)
    return _mm256_fmadd_ps(a, b, c);
#elif defined(__aarch64__)
    return vfmaq_f32(c, a, b);
#else
    return a * b + c;
#endif
}

inline float multiply_add(float a, float b, float c) {
#if defined(__FMA__) || defined(__aarch64__)
    return __builtin_fmaf(a, b, c);
#else
    return a * b + c;
#endif
}

// The sums of four vectors' lanes, each by the same tree.
inline void sum_four(vf a, vf b, vf c, vf d, float* out) {
#if defined(__AVX__)
#if defined(__AVX512F__)
    const auto half = [](vf v) { return _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1)); };
#else
    const auto half = [](vf v) { return v; };
#endif
    const __m256 pairs = _mm256_hadd_ps(_mm256_hadd_ps(half(a), half(b)), _mm256_hadd_ps(half(c), half(d)));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1)));
#else
    const vf* all_of[] = {&a, &b, &c, &d};
    for (int i = 0; i < 4; i++) {
        const vf& v = *all_of[i];
        out[i] = (v[0] + v[1]) + (v[2] + v[3]);
    }
#endif
}

inline float sum(vf v) {
    float out[4];
    sum_four(v, v, v, v, out);
    return out[0];
}

inline float largest(vf v) {
    float best = v[0];
    for (int i = 1; i < VEC; i++) best = v[i] > best ? v[i] : best;
    return best;
}

// e^x to a relative error of 2e-7: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2] (Cephes).
inline vf exponential(vf x) {
    x = x < all(-87.3f) ? all(-87.3f) : x;
    x = x > all(88.3f) ? all(88.3f) : x;
    const vf shifted = x * 1.44269504f + 12582912.0f;  // 1.5 x 2^23: the sum's low bits are the nearest whole number
    const vf whole = shifted - 12582912.0f;
    const vf r = x - whole * 0.693359375f - whole * -2.12194440e-4f;
    vf p = multiply_add(all(1.9875691500e-4f), r, all(1.3981999507e-3f));
    for (const float c : {8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
        p = multiply_add(p, r, all(c));
    p = multiply_add(p, r * r, r) + 1.0f;
    const vi power = (reinterpret_cast<vi>(shifted) << 23) + (reinterpret_cast<vi>(all(1.0f)));
    return p * reinterpret_cast<vf>(power);
}

inline float exponential(float x) { return exponential(all(x))[0]; }

// Keeps a value in a register: the compiler would rather read it from memory again for each use, and two reads a cycle
// are all that a core has.
inline void hold(vf& v) {
#if defined(__x86_64__)
    asm("" : "+x"(v));
#elif defined(__aarch64__)
    if constexpr (VEC == 4) asm("" : "+w"(v));
#endif
    (void)v;
}

// Weights -----------------------------------------------------------------------------------------------------------------

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

// kind: 0 fp32, W[n][k]; the others in panels, [n / PANEL][k][PANEL], the last one filled up: 1 bf16; 2 int8 with a scale a
// row; 3 int4, of which a byte holds output i (low) and i + VEC (high), with scales [n / PANEL][k / GROUP][PANEL]. bias may
// be null.
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
// Keys of a block are [head][head_dim][BLOCK], its values [head][BLOCK][head_dim]; a layer is `layer_size` numbers, of
// fp32, or bf16 if `short_cache`.
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
static_assert(BLOCK % VEC == 0, "a block of keys is whole vectors");

// Products ----------------------------------------------------------------------------------------------------------------
//
// y = x W' for a panel of W's rows, the outputs, at a time: its numbers stand k by k, all outputs of a k side by side, so
// that each output is summed in a lane of its own, over k from left to right.

constexpr int PANEL = 2 * VEC;
constexpr int DEPTH = 256;  // of k: that much of a panel stays in the first cache while all rows pass by
constexpr int GROUP = 64;   // of k, that share a scale where numbers have four bits
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
inline int one_row(const float* x, const float* w, int64_t stride, int depth, float* sums) {
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
    const bool scaled = m.kind == 2;
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

// y (rows x n) = or += x W', in the columns [begin, end), of which `begin` begins a panel.
inline void product(const float* x, int64_t x_stride, int rows, const Matrix& m, int begin, int end, bool add, float* y,
                    int64_t y_stride, Bench& bench) {
    if (m.kind == 0) product_in_place(x, x_stride, rows, m, begin, end, add, y, y_stride, bench);
    if (m.kind == 1) product_of_panels<BF16>(x, x_stride, rows, m, begin, end, add, y, y_stride, bench);
    if (m.kind == 2) product_of_panels<I8>(x, x_stride, rows, m, begin, end, add, y, y_stride, bench);
    if (m.kind == 3) product_of_panels<I4>(x, x_stride, rows, m, begin, end, add, y, y_stride, bench);
}

// Threads -----------------------------------------------------------------------------------------------------------------

inline void pause_briefly(int turn) {
#if defined(__x86_64__)
    if (turn < 4000) return __builtin_ia32_pause();
#endif
    std::this_thread::yield();
}

// Threads that run one function at a time together, and meet within it. They spin for a little while between two calls,
// then sleep.
class Team {
  public:
    explicit Team(int size) : size_(size) {
        try {
            for (int i = 1; i < size; i++) threads_.emplace_back([this, i] { serve(i); });
        } catch (...) {
            end();
            throw;
        }
    }

    ~Team() { end(); }

    int size() const { return size_; }

    // False if one of them could not go on. Work that meets must not throw: the others would wait for ever.
    template <class Work>
    bool run(Work& work) {
        set(work);
        {
            std::lock_guard<std::mutex> lock(mutex_);
            calls_.fetch_add(1);
        }
        if (sleeping_.load()) wake_.notify_all();
        call(0);
        meet();
        return !failed_.load(std::memory_order_relaxed);
    }

    // The same by this thread, where it is not worth waking the others.
    template <class Work>
    bool run_alone(Work& work) {
        set(work);
        call(0);
        return !failed_.load(std::memory_order_relaxed);
    }

    // All go on when all have come.
    void meet() {
        if (size_ == 1) return;
        const int turn = turns_.load(std::memory_order_acquire);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) == size_ - 1) {
            arrived_.store(0, std::memory_order_relaxed);
            turns_.store(turn + 1, std::memory_order_release);
        } else {
            for (int i = 0; turns_.load(std::memory_order_acquire) == turn; i++) pause_briefly(i);
        }
    }

  private:
    template <class Work>
    void set(Work& work) {
        call_ = [](void* what, int thread) { (*static_cast<Work*>(what))(thread); };
        what_ = &work;
        failed_.store(false, std::memory_order_relaxed);
    }

    void end() {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            ending_ = true;
            calls_.fetch_add(1);
        }
        wake_.notify_all();
        for (auto& thread : threads_) thread.join();
    }

    void call(int number) {
        try {
            call_(what_, number);
        } catch (...) {
            failed_.store(true, std::memory_order_relaxed);
        }
    }

    void serve(int number) {
        int seen = 0;
        while (true) {
            for (int i = 0; i < 20000 && calls_.load(std::memory_order_acquire) == seen; i++) pause_briefly(i);
            if (calls_.load() == seen) {
                std::unique_lock<std::mutex> lock(mutex_);
                sleeping_.fetch_add(1);
                wake_.wait(lock, [&] { return calls_.load() != seen; });
                sleeping_.fetch_sub(1);
            }
            seen = calls_.load(std::memory_order_acquire);
            if (ending_) return;
            call(number);
            meet();
        }
    }

    const int size_;
    std::vector<std::thread> threads_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::atomic<int> calls_{0}, sleeping_{0}, arrived_{0}, turns_{0};
    std::atomic<bool> failed_{false};
    void (*call_)(void*, int) = nullptr;
    void* what_ = nullptr;
    bool ending_ = false;
};

// The forward pass --------------------------------------------------------------------------------------------------------

void rms_norm(const float* x, const float* weight, int size, float eps, float* y) {  // y may be x
    vf squares = {};
    int i = 0;
    for (; i + VEC <= size; i += VEC) squares = multiply_add(load(x + i), load(x + i), squares);
    float total = sum(squares);
    for (; i < size; i++) total = multiply_add(x[i], x[i], total);
    const float scale = 1.0f / std::sqrt(total / size + eps);
    for (i = 0; i + VEC <= size; i += VEC) store(y + i, load(x + i) * scale * load(weight + i));
    for (; i < size; i++) y[i] = x[i] * scale * weight[i];
}

void rotate(float* x, const float* cos, const float* sin, int size) {
    for (int i = 0; i < size / 2; i++) {
        const float left = x[i], right = x[i + size / 2];
        x[i] = left * cos[i] - right * sin[i];
        x[i + size / 2] = right * cos[i + size / 2] + left * sin[i + size / 2];
    }
}

class Runner {
  public:
    Runner(const Model& model, int threads) : m_(model), team_(threads), scores_(threads), benches_(threads) {}

    bool forward(const Step& step) {
        reserve(step.num_tokens, step.table_width, step.adapter_of ? step.largest_rank : 0);  // no thread allocates
        auto work = [&](int thread) { all_layers(step, thread); };
        return team_.run(work);
    }

    Team& team() { return team_; }

  private:
    struct Range {
        int begin, end;
    };

    Range share(int count, int thread, int unit = 1) const {  // of `count` things, in whole units
        const int units = (count + unit - 1) / unit;
        const auto border = [&](int t) {
            const int64_t at = static_cast<int64_t>(units) * t / team_.size() * unit;
            return static_cast<int>(at < count ? at : count);
        };
        return {border(thread), border(thread + 1)};
    }

    void reserve(int tokens, int blocks, int rank) {
        const size_t wide = static_cast<size_t>(m_.heads) * m_.head_dim;
        const size_t narrow = static_cast<size_t>(m_.kv_heads) * m_.head_dim;
        if (tokens > room_) {
            x_.resize(static_cast<size_t>(tokens) * m_.hidden);
            normed_.resize(static_cast<size_t>(tokens) * m_.hidden);
            q_.resize(tokens * wide);
            k_.resize(tokens * narrow);
            v_.resize(tokens * narrow);
            read_.resize(tokens * wide);
            inner_.resize(static_cast<size_t>(tokens) * m_.intermediate);
            up_.resize(static_cast<size_t>(tokens) * m_.intermediate);
            room_ = tokens;
        }
        const size_t low = static_cast<size_t>(tokens) * 3 * rank;
        if (low > low_.size()) low_.resize(low);
        for (auto& scores : scores_)
            if (scores.size() < static_cast<size_t>(blocks) * BLOCK) scores.resize(static_cast<size_t>(blocks) * BLOCK);
        for (auto& bench : benches_)
            if (bench.sums.size() < static_cast<size_t>(tokens) * PANEL) bench.sums.resize(static_cast<size_t>(tokens) * PANEL);
    }

    void all_layers(const Step& s, int thread) {
        const int T = s.num_tokens, D = m_.hidden, K = m_.head_dim, F = m_.intermediate;
        const int wide = m_.heads * K, narrow = m_.kv_heads * K;
        const Range rows = share(T, thread);
        for (int t = rows.begin; t < rows.end; t++) embed(s.tokens[t], &x_[static_cast<size_t>(t) * D]);
        for (int l = 0; l < m_.num_layers; l++) {
            const Layer& layer = m_.layers[l];
            normalise(layer.input_norm, rows);
            narrow_down(s, l, thread, rows, normed_.data(), D, {&AdaptedLayer::q, &AdaptedLayer::k, &AdaptedLayer::v});
            team_.meet();
            put_product(layer.q, normed_.data(), D, T, thread, q_.data(), wide);
            put_product(layer.k, normed_.data(), D, T, thread, k_.data(), narrow);
            put_product(layer.v, normed_.data(), D, T, thread, v_.data(), narrow);
            widen(s, l, thread, layer.q, &AdaptedLayer::q, 0, q_.data());
            widen(s, l, thread, layer.k, &AdaptedLayer::k, 1, k_.data());
            widen(s, l, thread, layer.v, &AdaptedLayer::v, 2, v_.data());
            team_.meet();
            for (int t = rows.begin; t < rows.end; t++) s.short_cache ? keep<BF16>(s, layer, l, t) : keep<F32>(s, layer, l, t);
            team_.meet();
            const Range tasks = share(T * m_.kv_heads, thread);
            for (int i = tasks.begin; i < tasks.end; i++) {
                const int t = i / m_.kv_heads, g = i % m_.kv_heads;
                s.short_cache ? attend<BF16>(s, layer, l, t, g, thread) : attend<F32>(s, layer, l, t, g, thread);
            }
            team_.meet();
            add_adapted(s, l, thread, rows, layer.o, &AdaptedLayer::o, read_.data(), wide);
            normalise(layer.post_norm, rows);
            narrow_down(s, l, thread, rows, normed_.data(), D, {&AdaptedLayer::gate, &AdaptedLayer::up});
            team_.meet();
            put_product(layer.gate, normed_.data(), D, T, thread, inner_.data(), F);
            put_product(layer.up, normed_.data(), D, T, thread, up_.data(), F);
            widen(s, l, thread, layer.gate, &AdaptedLayer::gate, 0, inner_.data());
            widen(s, l, thread, layer.up, &AdaptedLayer::up, 1, up_.data());
            const Range inner = share(F, thread, PANEL);
            for (int t = 0; t < T; t++) gate(t, inner);
            team_.meet();
            add_adapted(s, l, thread, rows, layer.down, &AdaptedLayer::down, inner_.data(), F);
        }
        const Range wanted = share(s.num_out, thread);
        for (int i = wanted.begin; i < wanted.end; i++)
            rms_norm(&x_[static_cast<size_t>(s.out[i]) * D], m_.final_norm, D, m_.eps, s.hidden + static_cast<size_t>(i) * D);
        if (!s.num_scored) return;
        team_.meet();
        put_product(m_.head, s.hidden, D, s.num_scored, thread, s.logits, m_.vocab);
    }

    void embed(int token, float* x) const {
        const int D = m_.hidden;
        const Matrix& e = m_.embedding;
        if (e.kind == 0) {
            std::memcpy(x, static_cast<const float*>(e.data) + static_cast<int64_t>(token) * D, D * sizeof(float));
            return;
        }
        const int64_t first = static_cast<int64_t>(token / PANEL) * D * PANEL + token % PANEL;
        for (int i = 0; i < D; i++) {
            const int64_t at = first + static_cast<int64_t>(i) * PANEL;
            x[i] = e.kind == 1 ? BF16::one(static_cast<const uint16_t*>(e.data)[at])
                               : static_cast<const int8_t*>(e.data)[at] * e.scale[token];
        }
    }

    void normalise(const float* weight, Range rows) {
        const int D = m_.hidden;
        for (int t = rows.begin; t < rows.end; t++)
            rms_norm(&x_[static_cast<size_t>(t) * D], weight, D, m_.eps, &normed_[static_cast<size_t>(t) * D]);
    }

    void put_product(const Matrix& m, const float* x, int x_stride, int rows, int thread, float* y, int64_t y_stride) {
        const Range columns = share(m.n, thread, PANEL);
        product(x, x_stride, rows, m, columns.begin, columns.end, false, y, y_stride, benches_[thread]);
    }

    // inner = silu(gate) * up, in place of the gate.
    void gate(int t, Range columns) {
        float* gates = &inner_[static_cast<size_t>(t) * m_.intermediate];
        const float* ups = &up_[static_cast<size_t>(t) * m_.intermediate];
        int j = columns.begin;
        for (; j + VEC <= columns.end; j += VEC) {
            const vf g = load(gates + j);
            store(gates + j, g / (1.0f + exponential(-g)) * load(ups + j));
        }
        for (; j < columns.end; j++) gates[j] = gates[j] / (1.0f + exponential(-gates[j])) * ups[j];
    }

    typedef Factors AdaptedLayer::* Which;

    const Factors* factors_of(const Step& s, int l, int t, Which which) const {
        if (!s.adapter_of) return nullptr;
        const int adapter = s.adapter_of[s.sequences[t]];
        if (adapter < 0) return nullptr;
        const Factors& found = s.adapters[adapter][l].*which;
        return found.rank ? &found : nullptr;
    }

    float* low(const Step& s, int t, int place) { return &low_[(static_cast<size_t>(t) * 3 + place) * s.largest_rank]; }

    // A x of some tokens, for up to three matrices that read the same.
    void narrow_down(const Step& s, int l, int thread, Range rows, const float* x, int x_stride, std::initializer_list<Which> all_of) {
        int place = 0;
        for (const Which which : all_of) {
            for (int t = rows.begin; t < rows.end; t++)
                if (const Factors* f = factors_of(s, l, t, which)) {
                    const Matrix a{f->a, nullptr, nullptr, f->rank, x_stride, 0};
                    product(x + static_cast<int64_t>(t) * x_stride, x_stride, 1, a, 0, f->rank, false, low(s, t, place), 0, benches_[thread]);
                }
            place++;
        }
    }

    // y += B (A x), in this thread's columns.
    void widen(const Step& s, int l, int thread, const Matrix& m, Which which, int place, float* y) {
        if (!s.adapter_of) return;
        const Range columns = share(m.n, thread, PANEL);
        for (int t = 0; t < s.num_tokens; t++)
            if (const Factors* f = factors_of(s, l, t, which)) {
                const float* x = low(s, t, place);
                float* row = y + static_cast<size_t>(t) * m.n;
                for (int r = 0; r < f->rank; r++) {
                    const float* b = f->b_t + static_cast<size_t>(r) * m.n;
                    int j = columns.begin;
                    for (; j + VEC <= columns.end; j += VEC) store(row + j, multiply_add(load(b + j), all(x[r]), load(row + j)));
                    for (; j < columns.end; j++) row[j] = multiply_add(b[j], x[r], row[j]);
                }
            }
    }

    // The residual stream += a matrix of x, which all threads have made together.
    void add_adapted(const Step& s, int l, int thread, Range rows, const Matrix& m, Which which, const float* x, int x_stride) {
        if (s.adapter_of) {
            narrow_down(s, l, thread, rows, x, x_stride, {which});
            team_.meet();
        }
        add_product(m, x, x_stride, s.num_tokens, thread);
        widen(s, l, thread, m, which, 0, x_.data());
        team_.meet();
    }

    void add_product(const Matrix& m, const float* x, int x_stride, int rows, int thread) {
        const Range columns = share(m.n, thread, PANEL);
        product(x, x_stride, rows, m, columns.begin, columns.end, true, x_.data(), m_.hidden, benches_[thread]);
    }

    int block_of(const Step& s, int sequence, int position) const {
        return s.tables[static_cast<size_t>(sequence) * s.table_width + position / BLOCK];
    }

    // Norms and turns a token's queries and keys; its keys and values go into the cache.
    template <class Cache>
    void keep(const Step& s, const Layer& layer, int l, int t) {
        const int K = m_.head_dim, position = s.positions[t];
        const float *cos = s.cos + static_cast<size_t>(position) * K, *sin = s.sin + static_cast<size_t>(position) * K;
        for (int h = 0; h < m_.heads; h++) {
            float* q = &q_[(static_cast<size_t>(t) * m_.heads + h) * K];
            if (layer.q_norm) rms_norm(q, layer.q_norm, K, m_.eps, q);
            rotate(q, cos, sin, K);
        }
        const int64_t block = block_of(s, s.sequences[t], position), at = position % BLOCK;
        for (int g = 0; g < m_.kv_heads; g++) {
            float* k = &k_[(static_cast<size_t>(t) * m_.kv_heads + g) * K];
            if (layer.k_norm) rms_norm(k, layer.k_norm, K, m_.eps, k);
            rotate(k, cos, sin, K);
            const int64_t place = l * s.layer_size + (block * m_.kv_heads + g) * K * BLOCK;
            auto* keys = static_cast<typename Cache::Element*>(s.keys) + place;
            auto* values = static_cast<typename Cache::Element*>(s.values) + place;
            const float* v = &v_[(static_cast<size_t>(t) * m_.kv_heads + g) * K];
            for (int i = 0; i < K; i++) keys[i * BLOCK + at] = Cache::narrow(k[i]);
            for (int i = 0; i < K; i++) values[at * K + i] = Cache::narrow(v[i]);
        }
    }

    // What the heads that share key head g read at a token: softmax(q k' / sqrt(K)) v over the positions it sees.
    template <class Cache>
    void attend(const Step& s, const Layer& layer, int l, int t, int g, int thread) {
        const int K = m_.head_dim, shared = m_.heads / m_.kv_heads, position = s.positions[t], sequence = s.sequences[t];
        const int first = layer.window && position >= layer.window ? position - layer.window + 1 : 0;
        const int first_block = first / BLOCK, last_block = position / BLOCK;
        std::vector<float>& scores = scores_[thread];
        const float scale = 1.0f / std::sqrt(static_cast<float>(K));
        for (int h = g * shared; h < (g + 1) * shared; h++) {
            const float* q = &q_[(static_cast<size_t>(t) * m_.heads + h) * K];
            for (int b = first_block; b <= last_block; b++) {
                const int64_t block = block_of(s, sequence, b * BLOCK);
                const auto* keys = static_cast<const typename Cache::Element*>(s.keys) + l * s.layer_size +
                                   (block * m_.kv_heads + g) * K * BLOCK;
                vf found[BLOCK / VEC] = {};
                for (int i = 0; i < K; i++)
                    for (int c = 0; c < BLOCK / VEC; c++) found[c] = multiply_add(Cache::vector(keys + i * BLOCK + c * VEC), all(q[i]), found[c]);
                for (int c = 0; c < BLOCK / VEC; c++) store(&scores[(b - first_block) * BLOCK + c * VEC], found[c] * scale);
            }
            weigh<Cache>(s, l, t, g, h, first, first_block, scores.data());
        }
    }

    template <class Cache>
    void weigh(const Step& s, int l, int t, int g, int h, int first, int first_block, float* scores) {
        const int K = m_.head_dim, position = s.positions[t], sequence = s.sequences[t];
        const int begin = first - first_block * BLOCK, end = position - first_block * BLOCK + 1;
        float best = scores[begin];
        for (int i = begin; i < end; i++) best = scores[i] > best ? scores[i] : best;
        for (int i = 0; i < begin; i++) scores[i] = -INFINITY;
        for (int i = end; i < (end + BLOCK - 1) / BLOCK * BLOCK; i++) scores[i] = -INFINITY;
        vf totals = {};
        for (int i = 0; i < end; i += VEC) {
            const vf raw = load(scores + i) - best;
            const vf weight = raw < all(-87.0f) ? vf{} : exponential(raw);
            store(scores + i, weight);
            totals += weight;
        }
        const float scale = 1.0f / sum(totals);
        float* y = &read_[(static_cast<size_t>(t) * m_.heads + h) * K];
        std::memset(y, 0, K * sizeof(float));
        for (int i = begin; i < end;) {
            const int b = first_block + i / BLOCK, stop = end < (i / BLOCK + 1) * BLOCK ? end : (i / BLOCK + 1) * BLOCK;
            const int64_t block = block_of(s, sequence, b * BLOCK);
            const auto* values = static_cast<const typename Cache::Element*>(s.values) + l * s.layer_size +
                                 (block * m_.kv_heads + g) * K * BLOCK;
            for (int j = 0; j < K; j += 4 * VEC) accumulate<Cache>(y + j, values + j, K, K - j, scores, i, stop);
            i = stop;
        }
        for (int j = 0; j < K; j++) y[j] *= scale;
    }

    // y[0..4 VEC) += the weighted values of the positions [begin, end) of a block; `left` numbers are there.
    template <class Cache>
    static void accumulate(float* y, const typename Cache::Element* values, int K, int left, const float* weights, int begin, int end) {
        if (left >= 4 * VEC) {
            vf sums[4] = {load(y), load(y + VEC), load(y + 2 * VEC), load(y + 3 * VEC)};
            for (int i = begin; i < end; i++)
                for (int c = 0; c < 4; c++) sums[c] = multiply_add(Cache::vector(values + i % BLOCK * K + c * VEC), all(weights[i]), sums[c]);
            for (int c = 0; c < 4; c++) store(y + c * VEC, sums[c]);
            return;
        }
        for (int i = begin; i < end; i++)
            for (int j = 0; j < left; j++) y[j] = multiply_add(Cache::one(values[i % BLOCK * K + j]), weights[i], y[j]);
    }

    const Model m_;
    Team team_;
    int room_ = 0;
    std::vector<float> x_, normed_, q_, k_, v_, read_, inner_, up_, low_;
    std::vector<std::vector<float>> scores_;
    std::vector<Bench> benches_;
};

// Choosing tokens ---------------------------------------------------------------------------------------------------------

// One row: `scores` are what is sampled from, `raw` the model's own logits, whose log-probs are given.
class Draw {
  public:
    Draw(const float* scores, const float* raw, int size) : scores_(scores), raw_(raw), size_(size) {}

    int greedy() const { return peak(scores_); }

    // log sum exp of the raw logits.
    double normaliser() const {
        const float best = raw_[peak(raw_)];
        vf sums = {};
        int i = 0;
        for (; i + VEC <= size_; i += VEC) sums += exponential(load(raw_ + i) - best);
        double total = sum(sums);
        for (; i < size_; i++) total += exponential(raw_[i] - best);
        return best + std::log(total);
    }

    // The first token at which the cumulated probability passes `uniform`, after truncation (see sampling.py).
    int sample(float temperature, int top_k, float top_p, float min_p, double uniform, std::vector<float>& weights) const {
        const float best = scores_[peak(scores_)], scale = 1.0f / (temperature > 1e-4f ? temperature : 1e-4f);
        weights.resize(size_ + VEC);
        int i = 0;
        for (; i + VEC <= size_; i += VEC) {
            const vf raw = (load(scores_ + i) - best) * scale;
            store(&weights[i], raw < all(-87.0f) ? vf{} : exponential(raw));
        }
        for (; i < size_; i++) {
            const float raw = (scores_[i] - best) * scale;
            weights[i] = raw < -87.0f ? 0.0f : exponential(raw);
        }
        if ((top_k > 0 && top_k < size_) || top_p < 1.0f) truncate(weights, top_k, top_p);
        if (min_p > 0.0f)
            for (i = 0; i < size_; i++)
                if (weights[i] < min_p) weights[i] = 0.0f;  // the largest weight is 1
        double total = 0.0;
        for (i = 0; i < size_; i++) total += weights[i];
        const double target = uniform * total;
        double passed = 0.0;
        int last = 0;
        for (i = 0; i < size_; i++) {
            if (weights[i] == 0.0f) continue;
            passed += weights[i];
            last = i;
            if (passed > target) break;
        }
        return last;
    }

  private:
    int peak(const float* x) const {
        vf best = all(x[0]);
        int i = 0;
        for (; i + VEC <= size_; i += VEC) {
            const vf v = load(x + i);
            best = v > best ? v : best;
        }
        float top = largest(best);
        for (; i < size_; i++) top = x[i] > top ? x[i] : top;
        for (i = 0; i < size_; i++)
            if (x[i] == top) return i;
        return 0;
    }

    // Keeps the top-k weights and of those the smallest set with at least top-p of their sum; of equal ones the first.
    void truncate(std::vector<float>& weights, int top_k, float top_p) const {
        const auto before = [&](int a, int b) { return weights[a] != weights[b] ? weights[a] > weights[b] : a < b; };
        std::vector<int> order;
        for (int i = 0; i < size_; i++)
            if (weights[i] > 0.0f) order.push_back(i);
        const size_t most = top_k > 0 ? std::min(order.size(), static_cast<size_t>(top_k)) : order.size();
        size_t sorted = std::min<size_t>(most, top_p < 1.0f ? 256 : most);
        double total = 0.0;
        if (most < order.size()) std::nth_element(order.begin(), order.begin() + most, order.end(), before);
        order.resize(most);
        std::vector<int> by_index(order);
        std::sort(by_index.begin(), by_index.end());
        for (int i : by_index) total += weights[i];
        std::vector<char> kept(size_, 0);
        for (size_t done = 0; done < most;) {
            std::partial_sort(order.begin() + done, order.begin() + sorted, order.end(), before);
            for (; done < sorted; done++) {
                if (passed_ >= top_p * total && top_p < 1.0f) {
                    done = most;
                    break;
                }
                kept[order[done]] = 1;
                passed_ += weights[order[done]];
            }
            sorted = std::min(most, sorted * 4);
        }
        for (int i = 0; i < size_; i++)
            if (!kept[i]) weights[i] = 0.0f;
    }

    const float *scores_, *raw_;
    const int size_;
    mutable double passed_ = 0.0;
};

}  // namespace

extern "C" {

// For each of N rows a token, the log-prob of it, and the normaliser of the row.
struct Choice {
    int32_t rows, vocab;
    const float *scores, *raw, *temperature, *top_p, *min_p;
    const int32_t* top_k;
    const double* uniform;
    int32_t* tokens;
    float *logprobs, *normalisers;
};

// Like all that may want memory: 0, or 1 if there is none.
int32_t chatwheel_choose(void* runner, const Choice* choice) {
    const Choice& c = *choice;
    Team& team = static_cast<Runner*>(runner)->team();
    std::atomic<int> next{0};
    auto work = [&](int) {
        std::vector<float> weights;
        for (int row = next++; row < c.rows; row = next++) {
            const float* raw = c.raw + static_cast<size_t>(row) * c.vocab;
            const Draw draw(c.scores + static_cast<size_t>(row) * c.vocab, raw, c.vocab);
            const int token = c.temperature[row] == 0.0f
                                  ? draw.greedy()
                                  : draw.sample(c.temperature[row], c.top_k[row], c.top_p[row], c.min_p[row], c.uniform[row], weights);
            const double normaliser = draw.normaliser();
            c.tokens[row] = token;
            c.normalisers[row] = static_cast<float>(normaliser);
            c.logprobs[row] = static_cast<float>(raw[token] - normaliser);
        }
    };
    return (c.rows == 1 ? team.run_alone(work) : team.run(work)) ? 0 : 1;
}

void* chatwheel_create(const Model* model, int32_t threads) {  // null if there is no memory, or no thread
    try {
        return new Runner(*model, threads);
    } catch (...) {
        return nullptr;
    }
}

void chatwheel_destroy(void* runner) { delete static_cast<Runner*>(runner); }

int32_t chatwheel_forward(void* runner, const Step* step) {
    try {
        return static_cast<Runner*>(runner)->forward(*step) ? 0 : 1;
    } catch (...) {
        return 1;
    }
}

int32_t chatwheel_block_size() { return BLOCK; }
int32_t chatwheel_panel() { return PANEL; }
int32_t chatwheel_group() { return GROUP; }
}
