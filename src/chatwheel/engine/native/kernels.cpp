// The decoder's forward pass on CPUs: one call a step, all threads in step with each other.
//
// Every number is computed in an order that depends on its own row alone: a product is summed over k from left to right
// whatever the number of rows beside it, and attention goes over positions from left to right. So an answer
// does not depend on what else is in the batch, on how its prompt was cut into chunks, or on the number of threads.
//
// Weights of fp32 stay where they are, in the trainer's own memory; copies in smaller types come in panels (products.h), or in
// tiles (tiles.h) where the processor multiplies those.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <vector>

#include "attention.h"
#include "choosing.h"
#include "products.h"
#include "step.h"
#include "team.h"
#include "tile_attention.h"
#include "tiles.h"

namespace {

#if CHATWHEEL_TILES
static_assert(PANEL == TILE_PANEL, "threads share columns by panels");
#endif

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
    const int half = size / 2;
    int i = 0;
    for (; i + VEC <= half; i += VEC) {
        const vf left = load(x + i), right = load(x + i + half);
        store(x + i, left * load(cos + i) - right * load(sin + i));
        store(x + i + half, right * load(cos + i + half) + left * load(sin + i + half));
    }
    for (; i < half; i++) {
        const float left = x[i], right = x[i + half];
        x[i] = left * cos[i] - right * sin[i];
        x[i + half] = right * cos[i + half] + left * sin[i + half];
    }
}

class Runner {
  public:
    Runner(const Model& model, int threads)
        : m_(model), tiles_(model.embedding.kind >= BF16_TILES), team_(threads), scores_(threads), benches_(threads) {
#if CHATWHEEL_TILES
        tile_benches_.resize(tiles_ ? threads : 0);
        tile_readings_.resize(tiles_ ? threads : 0);
#endif
    }

    bool forward(const Step& step) {
        reserve(step.num_tokens, step.table_width, step.adapter_of ? step.largest_rank : 0);  // no thread allocates
        group(step);
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
        if (tiles_) {
            normed16_.reserve(tokens, m_.hidden);
            read16_.reserve(tokens, m_.heads * m_.head_dim);
            inner16_.reserve(tokens, m_.intermediate);
            last16_.reserve(tokens, m_.hidden);
#if CHATWHEEL_TILES
            for (auto& reading : tile_readings_) reading.reserve(blocks * BLOCK, m_.head_dim);
#endif
        }
        const size_t low = static_cast<size_t>(tokens) * 3 * rank;
        if (low > low_.size()) low_.resize(low);
        for (auto& scores : scores_)
            if (scores.size() < room_for_scores(blocks)) scores.resize(room_for_scores(blocks));
        for (auto& bench : benches_)
            if (bench.sums.size() < static_cast<size_t>(tokens) * PANEL) bench.sums.resize(static_cast<size_t>(tokens) * PANEL);
    }

    static size_t room_for_scores(int blocks) {
        return std::max<size_t>(NEAR, static_cast<size_t>(READERS) * blocks * BLOCK);
    }

    void all_layers(const Step& s, int thread) {
        const int T = s.num_tokens, D = m_.hidden, K = m_.head_dim, F = m_.intermediate;
        const int wide = m_.heads * K, narrow = m_.kv_heads * K;
        const Range rows = share(T, thread);
        for (int t = rows.begin; t < rows.end; t++) embed(s.tokens[t], &x_[static_cast<size_t>(t) * D]);
        for (int l = 0; l < m_.num_layers; l++) {
            const Layer& layer = m_.layers[l];
            normalise(layer.input_norm, rows);
            narrow_down(s, l, rows, normed_.data(), D, {&AdaptedLayer::q, &AdaptedLayer::k, &AdaptedLayer::v});
            team_.meet();
            const Input normed{normed_.data(), D, &normed16_};
            put_product(layer.q, normed, T, thread, q_.data(), wide);
            put_product(layer.k, normed, T, thread, k_.data(), narrow);
            put_product(layer.v, normed, T, thread, v_.data(), narrow);
            widen(s, l, thread, layer.q, &AdaptedLayer::q, 0, q_.data());
            widen(s, l, thread, layer.k, &AdaptedLayer::k, 1, k_.data());
            widen(s, l, thread, layer.v, &AdaptedLayer::v, 2, v_.data());
            team_.meet();
            for (int t = rows.begin; t < rows.end; t++) keep_token(s, layer, l, t, thread);
            team_.meet();
            read_past(s, layer, l, thread);
            team_.meet();
            add_adapted(s, l, thread, rows, layer.o, &AdaptedLayer::o, {read_.data(), wide, &read16_});
            normalise(layer.post_norm, rows);
            narrow_down(s, l, rows, normed_.data(), D, {&AdaptedLayer::gate, &AdaptedLayer::up});
            team_.meet();
            put_product(layer.gate, normed, T, thread, inner_.data(), F);
            put_product(layer.up, normed, T, thread, up_.data(), F);
            widen(s, l, thread, layer.gate, &AdaptedLayer::gate, 0, inner_.data());
            widen(s, l, thread, layer.up, &AdaptedLayer::up, 1, up_.data());
            const Range inner = share(F, thread, PANEL);
            for (int t = 0; t < T; t++) gate(t, inner);
            team_.meet();
            add_adapted(s, l, thread, rows, layer.down, &AdaptedLayer::down, {inner_.data(), F, &inner16_});
        }
        const Range wanted = share(s.num_out, thread);
        for (int i = wanted.begin; i < wanted.end; i++) {
            float* hidden = s.hidden + static_cast<size_t>(i) * D;
            rms_norm(&x_[static_cast<size_t>(s.out[i]) * D], m_.final_norm, D, m_.eps, hidden);
            make_narrow(hidden, D, last16_, i);
        }
        if (s.num_scored) {
            team_.meet();
            put_product(m_.head, {s.hidden, D, &last16_}, s.num_scored, thread, s.logits, m_.vocab);
        }
#if CHATWHEEL_TILES
        if (tiles_) end_tiles();
#endif
    }

    void embed(int token, float* x) const {
        const int D = m_.hidden;
        const Matrix& e = m_.embedding;
        if (e.kind == FLOAT32) {
            std::memcpy(x, static_cast<const float*>(e.data) + static_cast<int64_t>(token) * D, D * sizeof(float));
            return;
        }
        if (tiles_) {
            const int depth = round_up(D, TILE_DEPTH) / TILE_DEPTH;
            const int64_t first = static_cast<int64_t>(token / TILE_PANEL) * depth * 2 + token % TILE_PANEL / EDGE;
            for (int i = 0; i < D; i++) {
                const int64_t tile = first + i / TILE_DEPTH * 2;
                const int pair = i % TILE_DEPTH / 2, output = token % EDGE, odd = i % 2;
                x[i] = e.kind == BF16_TILES ? BF16::one(static_cast<const uint16_t*>(e.data)[tile * TILE + (pair * EDGE + output) * 2 + odd])
                                            : static_cast<const int8_t*>(e.data)[tile * TILE + (pair * 2 + odd) * EDGE + output] * e.scale[token];
            }
            return;
        }
        const int64_t first = static_cast<int64_t>(token / PANEL) * D * PANEL + token % PANEL;
        for (int i = 0; i < D; i++) {
            const int64_t at = first + static_cast<int64_t>(i) * PANEL;
            x[i] = e.kind == BFLOAT16 ? BF16::one(static_cast<const uint16_t*>(e.data)[at])
                               : static_cast<const int8_t*>(e.data)[at] * e.scale[token];
        }
    }

    void normalise(const float* weight, Range rows) {
        const int D = m_.hidden;
        for (int t = rows.begin; t < rows.end; t++) {
            float* normed = &normed_[static_cast<size_t>(t) * D];
            rms_norm(&x_[static_cast<size_t>(t) * D], weight, D, m_.eps, normed);
            make_narrow(normed, D, normed16_, t);
        }
    }

    // The same row in bf16, where products go by tiles.
    void make_narrow(const float* x, int size, Narrow& to, int t, int at = 0) const {
#if CHATWHEEL_TILES
        if (tiles_) narrow_row(x, size, to.row(t) + at);
#else
        (void)x, (void)size, (void)to, (void)t, (void)at;
#endif
    }

    // What a product reads: in fp32, and where products go by tiles in bf16.
    struct Input {
        const float* wide;
        int stride;
        const Narrow* narrow;
    };

    // y = or += a matrix of x, in this thread's columns.
    void put_product(const Matrix& m, const Input& x, int rows, int thread, float* y, int64_t y_stride, bool add = false) {
        const Range columns = share(m.n, thread, PANEL);
#if CHATWHEEL_TILES
        if (tiles_) return product(*x.narrow, rows, m, columns.begin, columns.end, add, y, y_stride, tile_benches_[thread]);
#endif
        product(x.wide, x.stride, rows, m, columns.begin, columns.end, add, y, y_stride, benches_[thread]);
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
        make_narrow(gates + columns.begin, columns.end - columns.begin, inner16_, t, columns.begin);
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
    void narrow_down(const Step& s, int l, Range rows, const float* x, int x_stride, std::initializer_list<Which> all_of) {
        int place = 0;
        for (const Which which : all_of) {
            for (int t = rows.begin; t < rows.end; t++)
                if (const Factors* f = factors_of(s, l, t, which)) {
                    dots(x + static_cast<int64_t>(t) * x_stride, f->a, f->rank, x_stride, low(s, t, place));
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
                int j = columns.begin;
                for (; j + 2 * VEC <= columns.end; j += 2 * VEC) {
                    vf left = load(row + j), right = load(row + j + VEC);
                    for (int r = 0; r < f->rank; r++) {
                        const float* b = f->b_t + static_cast<size_t>(r) * m.n + j;
                        left = multiply_add(load(b), all(x[r]), left);
                        right = multiply_add(load(b + VEC), all(x[r]), right);
                    }
                    store(row + j, left);
                    store(row + j + VEC, right);
                }
                for (; j < columns.end; j++)
                    for (int r = 0; r < f->rank; r++) row[j] = multiply_add(f->b_t[static_cast<size_t>(r) * m.n + j], x[r], row[j]);
            }
    }

    // The residual stream += a matrix of x, which all threads have made together.
    void add_adapted(const Step& s, int l, int thread, Range rows, const Matrix& m, Which which, const Input& x) {
        if (s.adapter_of) {
            narrow_down(s, l, rows, x.wide, x.stride, {which});
            team_.meet();
        }
        put_product(m, x, s.num_tokens, thread, x_.data(), m_.hidden, true);
        widen(s, l, thread, m, which, 0, x_.data());
        team_.meet();
    }

    int block_of(const Step& s, int sequence, int position) const {
        return s.tables[static_cast<size_t>(sequence) * s.table_width + position / BLOCK];
    }

    void keep_token(const Step& s, const Layer& layer, int l, int t, int thread) {
#if CHATWHEEL_TILES
        if (tiles_) return keep_in_tiles(s, layer, l, t, tile_readings_[thread]);
#endif
        (void)thread;
        s.short_cache ? keep<BF16>(s, layer, l, t) : keep<F32>(s, layer, l, t);
    }

    // Tokens of a sequence, some of the heads of a group each, whose queries go through attention together.
    struct Group {
        int first, count, head, heads;
    };

    // What all tokens read of those before them.
    void read_past(const Step& s, const Layer& layer, int l, int thread) {
#if CHATWHEEL_TILES
        if (tiles_) begin_tiles(FOR_ATTENTION);
#endif
        const int64_t all = work_.back() * m_.kv_heads;
        const int begin = task_at(all * thread / team_.size()), end = task_at(all * (thread + 1) / team_.size());
        for (int i = begin; i < end;) {  // the key heads of a group stand together
            const int group = i / m_.kv_heads, g = i % m_.kv_heads;
            const int some = std::min(end - i, m_.kv_heads - g);
            attend(s, layer, l, groups_[group], g, g + some, thread);
            i += some;
        }
    }

    void attend(const Step& s, const Layer& layer, int l, const Group& some, int g, int g_end, int thread) {
#if CHATWHEEL_TILES
        if (tiles_) {
            for (; g < g_end; g++) attend_by_tiles(s, layer, l, some, g, tile_readings_[thread]);
            return;
        }
#endif
        // As many key heads at a time as leave their scores in the nearer cache.
        const int most = std::max(1, NEAR / (READERS * (s.positions[some.first + some.count - 1] / BLOCK + 1) * BLOCK));
        for (; g < g_end; g += most) {
            const int stop = std::min(g + most, g_end);
            s.short_cache ? attend<BF16>(s, layer, l, some, g, stop, thread) : attend<F32>(s, layer, l, some, g, stop, thread);
        }
    }

    void group(const Step& s) {
        const int most = tiles_ ? EDGE : READERS, shared = m_.heads / m_.kv_heads;
        const int heads = std::min(shared, most), tokens = most / heads;
        groups_.clear();
        work_.assign(1, 0);
        begins_.resize(s.num_tokens);
        for (int t = 0; t < s.num_tokens; t++)
            begins_[t] = t && s.sequences[t] == s.sequences[t - 1] ? begins_[t - 1] : s.positions[t];
        for (int t = 0; t < s.num_tokens;) {
            int count = 1;
            while (count < tokens && t + count < s.num_tokens && s.sequences[t + count] == s.sequences[t]) count++;
            for (int head = 0; head < shared; head += heads) {
                groups_.push_back({t, count, head, std::min(heads, shared - head)});
                work_.push_back(work_.back() + s.positions[t + count - 1] / BLOCK + 3);  // beginning and ending cost some too
            }
            t += count;
        }
    }

#if CHATWHEEL_TILES
    // A block of a head in the cache: its numbers, filled up to whole tiles.
    int64_t head_size() const { return static_cast<int64_t>(round_up(m_.head_dim, TILE_DEPTH)) * BLOCK; }

    void keep_in_tiles(const Step& s, const Layer& layer, int l, int t, TileReading& r) {
        const int K = m_.head_dim, position = s.positions[t], at = position % BLOCK;
        turn_queries(s, layer, t);
        // Whoever begins a block leaves no old numbers behind the last position.
        const bool last = t + 1 == s.num_tokens || s.sequences[t + 1] != s.sequences[t], fresh = begins_[t] <= position - at;
        const int64_t block = block_of(s, s.sequences[t], position);
        for (int g = 0; g < m_.kv_heads; g++) {
            const int64_t place = l * s.layer_size + (block * m_.kv_heads + g) * head_size();
            narrow_row(turned_key(s, layer, t, g), K, r.row.data());
            keep_key(r.row.data(), K, at, static_cast<uint16_t*>(s.keys) + place);
            uint16_t* values = static_cast<uint16_t*>(s.values) + place;
            narrow_row(&v_[(static_cast<size_t>(t) * m_.kv_heads + g) * K], K, r.row.data());
            keep_value(r.row.data(), K, at, values);
            if (last && fresh) clear_behind(K, at, values);
        }
    }

    void attend_by_tiles(const Step& s, const Layer& layer, int l, const Group& some, int g, TileReading& r) {
        const int K = m_.head_dim, rows = some.count * some.heads, head = g * (m_.heads / m_.kv_heads) + some.head;
        const int stride = s.table_width * BLOCK;
        const int64_t place = l * s.layer_size + g * head_size();
        const CachedHead cached{static_cast<const uint16_t*>(s.keys) + place,
                                static_cast<const uint16_t*>(s.values) + place,
                                s.tables + static_cast<size_t>(s.sequences[some.first]) * s.table_width,
                                m_.kv_heads * head_size(),
                                sees_from(s, layer, some.first) / BLOCK,
                                s.positions[some.first + some.count - 1] / BLOCK + 1};
        const int begin = cached.begin, end = cached.end;
        for (int i = 0; i < rows; i++) {
            const int t = some.first + i / some.heads;
            narrow_row(&q_[(static_cast<size_t>(t) * m_.heads + head + i % some.heads) * K], K, r.queries.row(i));
        }
        score_blocks(r, cached, K, stride);
        float inverse[EDGE];
        const float scale = 1.0f / std::sqrt(static_cast<float>(K));
        for (int i = 0; i < rows; i++) {
            const int t = some.first + i / some.heads, offset = begin * BLOCK;
            inverse[i] = weigh_row(&r.scores[static_cast<size_t>(i) * stride], &r.weights[static_cast<size_t>(i) * stride],
                                   sees_from(s, layer, t) - offset, s.positions[t] + 1 - offset, (end - begin) * BLOCK, scale);
        }
        for (int at = 0; at < K; at += 4 * EDGE) {
            read_values(r, cached, K, at, stride);
            const int width = std::min(K - at, 4 * EDGE);
            for (int i = 0; i < rows; i++) {
                const int t = some.first + i / some.heads, to = (head + i % some.heads) * K + at;
                float* y = &read_[static_cast<size_t>(t) * m_.heads * K + to];
                for (int part = 0; part < width; part += EDGE) {
                    const vf found = load(r.read[part / EDGE][i]) * inverse[i];
                    _mm512_mask_storeu_ps(y + part, static_cast<__mmask16>((1u << std::min(width - part, EDGE)) - 1), found);
                }
                narrow_row(y, width, read16_.row(t) + to);
            }
        }
    }
#endif

    // Tasks are the groups' key heads, one after the other: the first one that has so much work before it.
    int task_at(int64_t work) const {
        const int64_t heads = m_.kv_heads;
        const auto next = std::upper_bound(work_.begin(), work_.end(), work / heads);
        if (next == work_.end()) return static_cast<int>(groups_.size() * heads);
        const int64_t group = next - work_.begin() - 1, each = *next - work_[group], inside = work - work_[group] * heads;
        return static_cast<int>(group * heads + (inside + each - 1) / each);
    }

    int sees_from(const Step& s, const Layer& layer, int t) const {
        return layer.window && s.positions[t] >= layer.window ? s.positions[t] - layer.window + 1 : 0;
    }

    void turn_queries(const Step& s, const Layer& layer, int t) {
        const int K = m_.head_dim;
        const float *cos = s.cos + static_cast<size_t>(s.positions[t]) * K, *sin = s.sin + static_cast<size_t>(s.positions[t]) * K;
        for (int h = 0; h < m_.heads; h++) {
            float* q = &q_[(static_cast<size_t>(t) * m_.heads + h) * K];
            if (layer.q_norm) rms_norm(q, layer.q_norm, K, m_.eps, q);
            rotate(q, cos, sin, K);
        }
    }

    const float* turned_key(const Step& s, const Layer& layer, int t, int g) {
        const int K = m_.head_dim;
        float* k = &k_[(static_cast<size_t>(t) * m_.kv_heads + g) * K];
        if (layer.k_norm) rms_norm(k, layer.k_norm, K, m_.eps, k);
        rotate(k, s.cos + static_cast<size_t>(s.positions[t]) * K, s.sin + static_cast<size_t>(s.positions[t]) * K, K);
        return k;
    }

    // Norms and turns a token's queries and keys; its keys and values go into the cache.
    template <class Cache>
    void keep(const Step& s, const Layer& layer, int l, int t) {
        const int K = m_.head_dim, position = s.positions[t];
        turn_queries(s, layer, t);
        const int64_t block = block_of(s, s.sequences[t], position), at = position % BLOCK;
        for (int g = 0; g < m_.kv_heads; g++) {
            const float* k = turned_key(s, layer, t, g);
            const int64_t place = l * s.layer_size + (block * m_.kv_heads + g) * K * BLOCK;
            auto* keys = static_cast<typename Cache::Element*>(s.keys) + place;
            auto* values = static_cast<typename Cache::Element*>(s.values) + place;
            const float* v = &v_[(static_cast<size_t>(t) * m_.kv_heads + g) * K];
            for (int i = 0; i < K; i++) keys[i * BLOCK + at] = Cache::narrow(k[i]);
            for (int i = 0; i < K; i++) values[at * K + i] = Cache::narrow(v[i]);
        }
    }

    // What a group's heads that share the key heads [g, g_end) read: softmax(q k' / sqrt(K)) v over the positions that each
    // token sees. A block's key heads lie together, so all of them are read before the next block.
    template <class Cache>
    void attend(const Step& s, const Layer& layer, int l, const Group& some, int g, int g_end, int thread) {
        const int K = m_.head_dim, shared = m_.heads / m_.kv_heads, rows = some.count * some.heads, count = g_end - g;
        const int first = sees_from(s, layer, some.first), last = s.positions[some.first + some.count - 1];
        const int begin = first / BLOCK, end = last / BLOCK + 1, width = (end - begin) * BLOCK;
        const int* table = s.tables + static_cast<size_t>(s.sequences[some.first]) * s.table_width;
        const int64_t head = static_cast<int64_t>(K) * BLOCK, place = l * s.layer_size + g * head;
        const auto* keys = static_cast<const typename Cache::Element*>(s.keys) + place;
        const auto* values = static_cast<const typename Cache::Element*>(s.values) + place;
        float* scores = scores_[thread].data();  // [g][row][position]
        const auto at = [&](int row, int i) {
            return (static_cast<size_t>(some.first + row / some.heads) * m_.heads + (g + i) * shared + some.head + row % some.heads) * K;
        };
        const float scale = 1.0f / std::sqrt(static_cast<float>(K));
        const float* q[READERS];
        for (int b = begin; b < end; b++) {
            for (int i = 0; i < count; i++) {
                for (int row = 0; row < rows; row++) q[row] = &q_[at(row, i)];
                float* to = scores + static_cast<size_t>(i) * rows * width + (b - begin) * BLOCK;
                score_block<Cache>(q, rows, keys + (table[b] * m_.kv_heads + i) * head, K, scale, to, width);
            }
        }
        for (int i = 0; i < count; i++)
            for (int row = 0; row < rows; row++) {
                const int t = some.first + row / some.heads, offset = begin * BLOCK;
                float* to = scores + (static_cast<size_t>(i) * rows + row) * width;
                const float inverse = weigh(to, sees_from(s, layer, t) - offset, s.positions[t] + 1 - offset, width);
                for (int j = 0; j < width; j += VEC) store(to + j, load(to + j) * inverse);
                std::memset(&read_[at(row, i)], 0, K * sizeof(float));
            }
        float* y[READERS];
        for (int b = begin; b < end; b++) {
            const int from = b == begin ? first % BLOCK : 0, to = b + 1 == end ? last % BLOCK + 1 : BLOCK;
            for (int i = 0; i < count; i++) {
                for (int row = 0; row < rows; row++) y[row] = &read_[at(row, i)];
                const float* weights = scores + static_cast<size_t>(i) * rows * width + (b - begin) * BLOCK;
                add_values<Cache>(y, rows, values + (table[b] * m_.kv_heads + i) * head, K, weights, width, from, to);
            }
        }
    }

    const Model m_;
    const bool tiles_;
    Team team_;
    int room_ = 0;
    std::vector<float> x_, normed_, q_, k_, v_, read_, inner_, up_, low_;
    std::vector<std::vector<float>> scores_;
    std::vector<Bench> benches_;
    // Where products go by tiles.
    Narrow normed16_, read16_, inner16_, last16_;
    std::vector<Group> groups_;
    std::vector<int> begins_;  // of each token, the position of the first one of its sequence in this step
    std::vector<int64_t> work_;  // of the groups before each, in blocks that a head reads
#if CHATWHEEL_TILES
    std::vector<TileBench> tile_benches_;
    std::vector<TileReading> tile_readings_;
#endif
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
int32_t chatwheel_tiles() { return have_tiles(); }  // whether weights may come in them
int32_t chatwheel_tile_depth() { return TILE_DEPTH; }
}
