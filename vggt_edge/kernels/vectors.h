// Loading, storing, exponentials and GELU, shared by the kernels.
#pragma once
#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef uint16_t bf16;

// One DO a row of a tile: the compiler keeps accumulators in registers only when each has a name of
// its own.
#define EACH_6(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5)
#define EACH_1(DO) DO(0)

#ifdef __AVX512BF16__
static inline __m512bh pairs(__m512i x) { return (__m512bh)x; }
#endif

static inline __m512 load_bf16(const bf16 *p) {
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}

static inline void store_bf16(bf16 *p, __m512 v) {
    // Round to nearest even; the inputs are finite.
    __m512i bits = _mm512_castps_si512(v);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    bits = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16)));
}

static inline __m512 load_any(const void *x, int64_t i, int half) {
    return half ? load_bf16((const bf16 *)x + i) : _mm512_loadu_ps((const float *)x + i);
}

static inline void store_any(void *y, int64_t i, int half, __m512 v) {
    if (half) store_bf16((bf16 *)y + i, v);
    else _mm512_storeu_ps((float *)y + i, v);
}

// exp(x) for x <= 0, relative error below 1e-6: 2^i * 2^f with a polynomial on [-0.5, 0.5].
static inline __m512 exp_negative(__m512 x) {
    x = _mm512_max_ps(x, _mm512_set1_ps(-87.0f));
    __m512 t = _mm512_mul_ps(x, _mm512_set1_ps(1.44269504f));
    __m512 i = _mm512_roundscale_ps(t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 f = _mm512_sub_ps(t, i);
    __m512 p = _mm512_set1_ps(1.5403530e-4f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.3333558e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.6181291e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.5504109e-2f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.4022651e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9314718e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, i);
}

// x * Phi(x). Phi(x) = 1/2 + x P(x^2) up to |x| = 5.2, where it is 0 or 1 to 1e-7; P by least
// squares on Chebyshev points. Error below 7e-7 up to there, and below 4e-7 |x| everywhere.
static inline __m512 gelu(__m512 x) {
    static const float P[14] = {
        0.13594998f,     -0.0677436078f, 0.0500256946f,  -0.0399323479f, 0.031972954f,
        -0.0246954889f,  0.0180427651f,  -0.0126322231f, 0.00835820363f, -0.00452058701f,
        0.00201000657f,  -0.00148584467f, 0.0011877233f, -0.000383405766f};
    const __m512 end = _mm512_set1_ps(5.2f);
    __m512 c = _mm512_min_ps(_mm512_max_ps(x, _mm512_sub_ps(_mm512_setzero_ps(), end)), end);
    __m512 t = _mm512_fmsub_ps(_mm512_mul_ps(c, c), _mm512_set1_ps(2 / (5.2f * 5.2f)),
                               _mm512_set1_ps(1.0f));
    __m512 p = _mm512_set1_ps(P[13]);
    for (int i = 12; i >= 0; i--) p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(P[i]));
    __m512 phi = _mm512_fmadd_ps(c, p, _mm512_set1_ps(0.5f));
    __mmask16 counts = _mm512_cmp_ps_mask(x, _mm512_sub_ps(_mm512_setzero_ps(), end), _CMP_NLT_UQ);
    return _mm512_maskz_mul_ps(counts, x, phi);
}
