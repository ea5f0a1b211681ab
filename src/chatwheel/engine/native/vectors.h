// Vectors of as many floats as the processor adds at once, and what a sum or a product of them is.
//
// Like all headers here it is part of one translation unit, `kernels.cpp`.
#pragma once

#include <cstdint>
#include <cstring>
#include <initializer_list>

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

}  // namespace
