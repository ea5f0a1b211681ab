// Tokens from logits.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "vectors.h"

namespace {

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
