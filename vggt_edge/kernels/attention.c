// Softmax attention for heads 64 wide in bf16, on x86 CPUs with AVX512-BF16.
//
// Six queries meet 64 keys at a time in registers; scores, exponentials and sums are float32, and
// a running maximum rescales what was summed before (online softmax, as in Dao et al.,
// "FlashAttention", 2022). Nothing larger than six rows of BLOCK scores exists. Keys are packed so
// that one load holds two neighbouring channels of sixteen keys, values so that one holds two
// neighbouring keys of sixteen channels, which is what vdpbf16ps multiplies.
#include "vectors.h"

#ifdef __AVX512BF16__

#define WIDTH 64
#define ROWS 6
#define BLOCK 640

typedef struct {
    uint32_t *keys;   // (groups of 16 keys, WIDTH / 2, 16)
    uint32_t *values; // (pairs of keys, WIDTH)
    float *scores;    // (ROWS, BLOCK)
    bf16 *weights;    // (ROWS, BLOCK)
} Scratch;

static void pack_keys(const bf16 *k, int64_t count, int64_t stride, uint32_t *out) {
    for (int64_t n = 0; n < count; n++) {
        const uint32_t *row = (const uint32_t *)(k + n * stride);
        uint32_t *to = out + n / 16 * (WIDTH / 2 * 16) + n % 16;
        for (int d = 0; d < WIDTH / 2; d++) to[d * 16] = row[d];
    }
}

static void pack_values(const bf16 *v, int64_t count, int64_t stride, uint32_t *out) {
    for (int64_t n = 0; n < count; n += 2) {
        const bf16 *even = v + n * stride, *odd = even + stride;
        for (int d = 0; d < WIDTH; d++)
            out[n / 2 * WIDTH + d] = even[d] | (uint32_t)(n + 1 < count ? odd[d] : 0) << 16;
    }
}

#define ZERO(R) __m512 a##R##0 = none, a##R##1 = none, a##R##2 = none, a##R##3 = none;
#define STEP(R)                                                                                    \
    v = pairs(_mm512_set1_epi32(rows[R * reach + i]));                                             \
    a##R##0 = _mm512_dpbf16_ps(a##R##0, v, w0);                                                    \
    a##R##1 = _mm512_dpbf16_ps(a##R##1, v, w1);                                                    \
    a##R##2 = _mm512_dpbf16_ps(a##R##2, v, w2);                                                    \
    a##R##3 = _mm512_dpbf16_ps(a##R##3, v, w3);
#define KEEP(R)                                                                                    \
    _mm512_storeu_ps(out + R * pitch, a##R##0);                                                    \
    _mm512_storeu_ps(out + R * pitch + 16, a##R##1);                                               \
    _mm512_storeu_ps(out + R * pitch + 32, a##R##2);                                               \
    _mm512_storeu_ps(out + R * pitch + 48, a##R##3);

// out (6, 64) float32, `pitch` apart, of six rows of `count` pairs, `reach` apart, times packed
// columns: the four loads of step i lie at packed + i * step + {0, next, 2 next, 3 next}.
static void product(const int32_t *rows, int64_t reach, int64_t count, const uint32_t *packed,
                    int64_t step, int64_t next, float *out, int64_t pitch) {
    const __m512 none = _mm512_setzero_ps();
    EACH_6(ZERO)
    for (int64_t i = 0; i < count; i++, packed += step) {
        __m512bh w0 = pairs(_mm512_loadu_si512(packed)), v;
        __m512bh w1 = pairs(_mm512_loadu_si512(packed + next));
        __m512bh w2 = pairs(_mm512_loadu_si512(packed + 2 * next));
        __m512bh w3 = pairs(_mm512_loadu_si512(packed + 3 * next));
        EACH_6(STEP)
    }
    EACH_6(KEEP)
}

#define ZERO_16(R) __m512 a##R = none;
#define STEP_16(R) a##R = _mm512_dpbf16_ps(a##R, pairs(_mm512_set1_epi32(rows[R * reach + i])), w);
#define KEEP_16(R) _mm512_storeu_ps(out + R * pitch, a##R);

// The same for sixteen columns: what is left when the keys are no multiple of 64.
static void product_16(const int32_t *rows, int64_t reach, int64_t count, const uint32_t *packed,
                       int64_t step, float *out, int64_t pitch) {
    const __m512 none = _mm512_setzero_ps();
    EACH_6(ZERO_16)
    for (int64_t i = 0; i < count; i++, packed += step) {
        __m512bh w = pairs(_mm512_loadu_si512(packed));
        EACH_6(STEP_16)
    }
    EACH_6(KEEP_16)
}

// Six rows of queries (the last ones repeated where there are fewer) among all packed keys.
static void six_queries(const int32_t *q, int64_t keys, const Scratch *s, float scale,
                        float *seen) {
    float most[ROWS], sum[ROWS], part[ROWS * WIDTH];
    for (int r = 0; r < ROWS; r++) most[r] = -INFINITY, sum[r] = 0;
    memset(seen, 0, sizeof(float) * ROWS * WIDTH);
    for (int64_t begin = 0; begin < keys; begin += BLOCK) {
        int64_t count = keys - begin < BLOCK ? keys - begin : BLOCK;
        int64_t padded = (count + 15) / 16 * 16, k = 0;
        const uint32_t *packed = s->keys + begin * (WIDTH / 2);
        for (; k + 64 <= padded; k += 64)
            product(q, WIDTH / 2, WIDTH / 2, packed + k * (WIDTH / 2), 16, WIDTH / 2 * 16,
                    s->scores + k, BLOCK);
        for (; k < padded; k += 16)
            product_16(q, WIDTH / 2, WIDTH / 2, packed + k * (WIDTH / 2), 16, s->scores + k, BLOCK);
        for (int r = 0; r < ROWS; r++) {
            float *scores = s->scores + r * BLOCK;
            for (int64_t k = count; k < padded; k++) scores[k] = -INFINITY;
            __m512 top = _mm512_set1_ps(-INFINITY);
            for (int64_t k = 0; k < padded; k += 16)
                top = _mm512_max_ps(top, _mm512_loadu_ps(scores + k));
            float now = _mm512_reduce_max_ps(top) * scale;
            if (now < most[r]) now = most[r];
            float fade = expf(most[r] - now);
            __m512 shift = _mm512_set1_ps(-now), factor = _mm512_set1_ps(scale);
            __m512 total = _mm512_setzero_ps();
            for (int64_t k = 0; k < padded; k += 16) {
                __m512 x = _mm512_fmadd_ps(_mm512_loadu_ps(scores + k), factor, shift);
                __mmask16 far = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-87.0f), _CMP_GE_OQ);
                __m512 p = _mm512_maskz_mov_ps(far, exp_negative(x));
                total = _mm512_add_ps(total, p);
                _mm256_storeu_si256((__m256i *)(s->weights + r * BLOCK + k),
                                    (__m256i)_mm512_cvtneps_pbh(p));
            }
            most[r] = now;
            sum[r] = sum[r] * fade + _mm512_reduce_add_ps(total);
            for (int d = 0; d < WIDTH; d++) seen[r * WIDTH + d] *= fade;
        }
        product((const int32_t *)s->weights, BLOCK / 2, (count + 1) / 2,
                s->values + begin / 2 * WIDTH, WIDTH, 16, part, WIDTH);
        for (int i = 0; i < ROWS * WIDTH; i++) seen[i] += part[i];
    }
    for (int r = 0; r < ROWS; r++)
        for (int d = 0; d < WIDTH; d++) seen[r * WIDTH + d] /= sum[r];
}

// softmax(q k^T / 8) v.
//   q, k, v: bf16, element (b, h, n, d) at b * sb + h * sh + n * sn + d, for which `strides` holds
//   {q: sb, sh, sn, k: ..., v: ...}; y bf16 (batch, queries, heads, 64).
// Returns 0, or 1 when there is no memory for one head's packed keys and values a thread.
int attend(const bf16 *q, const bf16 *k, const bf16 *v, const int64_t *strides, int64_t batch,
           int64_t heads, int64_t queries, int64_t keys, bf16 *y) {
    int failed = 0;
    int64_t padded = (keys + 63) / 64 * 64;
#pragma omp parallel
    {
        size_t words = padded * WIDTH / 2;
        size_t bytes = 8 * words + ROWS * BLOCK * 6;
        void *memory = NULL;
        Scratch s = {0};
        if (posix_memalign(&memory, 64, bytes)) {
#pragma omp atomic write
            failed = 1;
            memory = NULL;
        } else {
            // Padding must be finite: its weight is zero, but zero times NaN is not.
            memset(memory, 0, bytes);
            s.keys = memory;
            s.values = s.keys + words;
            s.scores = (float *)(s.values + words);
            s.weights = (bf16 *)(s.scores + ROWS * BLOCK);
        }
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < batch * heads; task++) {
            if (!memory) continue;
            int64_t b = task / heads, h = task % heads;
            pack_keys(k + b * strides[3] + h * strides[4], keys, strides[5], s.keys);
            pack_values(v + b * strides[6] + h * strides[7], keys, strides[8], s.values);
            const bf16 *own = q + b * strides[0] + h * strides[1];
            int32_t six[ROWS * WIDTH / 2];
            float seen[ROWS * WIDTH];
            for (int64_t n = 0; n < queries; n += ROWS) {
                int64_t rows = queries - n < ROWS ? queries - n : ROWS;
                for (int64_t r = 0; r < ROWS; r++)
                    memcpy(six + r * WIDTH / 2,
                           own + (n + (r < rows ? r : rows - 1)) * strides[2],
                           WIDTH * sizeof(bf16));
                six_queries(six, keys, &s, 0.125f, seen);
                for (int64_t r = 0; r < rows; r++)
                    for (int d = 0; d < WIDTH; d += 16)
                        store_bf16(y + ((b * queries + n + r) * heads + h) * WIDTH + d,
                                   _mm512_loadu_ps(seen + r * WIDTH + d));
            }
        }
        free(memory);
    }
    return failed;
}

// Queries or keys of each head, normalised and turned by their position, in float32.
//   x bf16, rows `stride` apart, heads side by side; gain and shift (64) or null; cosine and sine
//   (period, 64) or null, row n uses table row n % period; y bf16 (batch, heads, tokens, 64).
void turn(const bf16 *x, int64_t stride, int64_t batch, int64_t tokens, int64_t heads,
          const float *gain, const float *shift, float eps, const float *cosine,
          const float *sine, int64_t period, bf16 *y) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < batch * tokens; row++) {
        int64_t b = row / tokens, n = row % tokens;
        const float *c = cosine ? cosine + n % period * WIDTH : NULL;
        const float *s = sine ? sine + n % period * WIDTH : NULL;
        for (int64_t h = 0; h < heads; h++) {
            __m512 part[4];
            for (int i = 0; i < 4; i++)
                part[i] = load_bf16(x + row * stride + h * WIDTH + 16 * i);
            if (gain) {
                __m512 all = _mm512_add_ps(_mm512_add_ps(part[0], part[1]),
                                           _mm512_add_ps(part[2], part[3]));
                __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(all) / WIDTH);
                __m512 square = _mm512_setzero_ps();
                for (int i = 0; i < 4; i++) {
                    part[i] = _mm512_sub_ps(part[i], mean);
                    square = _mm512_fmadd_ps(part[i], part[i], square);
                }
                float rms = 1 / sqrtf(_mm512_reduce_add_ps(square) / WIDTH + eps);
                for (int i = 0; i < 4; i++) {
                    part[i] = _mm512_mul_ps(part[i], _mm512_set1_ps(rms));
                    part[i] = _mm512_fmadd_ps(part[i], _mm512_loadu_ps(gain + 16 * i),
                                              _mm512_loadu_ps(shift + 16 * i));
                }
            }
            if (c) {
                __m512 other[4] = {_mm512_sub_ps(_mm512_setzero_ps(), part[1]), part[0],
                                   _mm512_sub_ps(_mm512_setzero_ps(), part[3]), part[2]};
                for (int i = 0; i < 4; i++)
                    part[i] = _mm512_fmadd_ps(
                        other[i], _mm512_loadu_ps(s + 16 * i),
                        _mm512_mul_ps(part[i], _mm512_loadu_ps(c + 16 * i)));
            }
            bf16 *to = y + ((b * heads + h) * tokens + n) * WIDTH;
            for (int i = 0; i < 4; i++) store_bf16(to + 16 * i, part[i]);
        }
    }
}

#endif
