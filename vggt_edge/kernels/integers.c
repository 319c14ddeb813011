// Integer matrix products for x86 with AVX512-VNNI, and what stands right before and after them.
//
// Weights are kept as unsigned bytes (code + 128) in panels of 64 columns: panel, then groups of
// four k, then column, then k within the group, so that one 64-byte load holds four k of sixteen
// columns, as vpdpbusd wants them. Four-bit panels hold two such loads in one: low nibbles the
// first, high nibbles the second.
//
// Activations are signed bytes with one scale and one zero point a row:
//     x = scale * (q - zero)
// and a product is therefore
//     y[m][n] = scale[m] * step[n] * (sum_k q w8 - 128 * sum_k q - zero[m] * sum_k w) + bias[n]
#include "vectors.h"

#define ROWS 6
#define COLS 64

// Rows to signed codes in [low, high] with a scale and a zero point each.
//   x (rows, width) float32 or bf16, `stride` apart; gain (width) or null multiplies x first;
//   clip shrinks the range; q (rows, width) int8; sum (rows): 128 * sum of the codes.
void quantize_rows(const void *x, int half, int64_t rows, int64_t width, int64_t stride,
                   const float *gain, float clip, int low, int high,
                   int8_t *q, float *scale, int32_t *zero, int32_t *sum) {
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        int64_t begin = r * stride, whole = width & ~15LL;
        int8_t *out = q + r * width;
        __m512 least = _mm512_setzero_ps(), most = _mm512_setzero_ps();
        float lo = 0, hi = 0;
        for (int64_t k = 0; k < whole; k += 16) {
            __m512 v = load_any(x, begin + k, half);
            if (gain) v = _mm512_mul_ps(v, _mm512_loadu_ps(gain + k));
            least = _mm512_min_ps(least, v);
            most = _mm512_max_ps(most, v);
        }
        lo = _mm512_reduce_min_ps(least) * clip;
        hi = _mm512_reduce_max_ps(most) * clip;
        float step = (hi - lo) / (float)(high - low);
        if (!(step > 0)) step = 1;
        float inverse = 1 / step;
        int z = (int)lrintf((float)low - lo * inverse);
        z = z < low ? low : z > high ? high : z;
        __m512i total = _mm512_setzero_si512();
        __m512 vi = _mm512_set1_ps(inverse);
        __m512i vz = _mm512_set1_epi32(z);
        for (int64_t k = 0; k < whole; k += 16) {
            __m512 v = load_any(x, begin + k, half);
            if (gain) v = _mm512_mul_ps(v, _mm512_loadu_ps(gain + k));
            __m512i c = _mm512_add_epi32(_mm512_cvtps_epi32(_mm512_mul_ps(v, vi)), vz);
            c = _mm512_min_epi32(_mm512_max_epi32(c, _mm512_set1_epi32(low)), _mm512_set1_epi32(high));
            total = _mm512_add_epi32(total, c);
            _mm_storeu_si128((__m128i *)(out + k), _mm512_cvtepi32_epi8(c));
        }
        scale[r] = step;
        zero[r] = z;
        sum[r] = 128 * _mm512_reduce_add_epi32(total);
    }
}

// One orthonormal Walsh-Hadamard transform of every `block` neighbours of each float32 row, after
// the signs are flipped. block: a power of two from 16.
void hadamard_rows(float *x, int64_t rows, int64_t width, int64_t block, const float *sign) {
    float norm = 1 / sqrtf((float)block);
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        float *row = x + r * width;
        for (int64_t k = 0; k < width; k++) row[k] *= sign[k] * norm;
        for (int64_t b = 0; b < width; b += block) {
            float *v = row + b;
            for (int64_t h = 1; h < block; h *= 2) {
                if (h < 16) {
                    for (int64_t i = 0; i < block; i += 2 * h)
                        for (int64_t j = i; j < i + h; j++) {
                            float s = v[j] + v[j + h], d = v[j] - v[j + h];
                            v[j] = s, v[j + h] = d;
                        }
                } else {
                    for (int64_t i = 0; i < block; i += 2 * h)
                        for (int64_t j = i; j < i + h; j += 16) {
                            __m512 a = _mm512_loadu_ps(v + j), c = _mm512_loadu_ps(v + j + h);
                            _mm512_storeu_ps(v + j, _mm512_add_ps(a, c));
                            _mm512_storeu_ps(v + j + h, _mm512_sub_ps(a, c));
                        }
                }
            }
        }
    }
}

typedef struct {
    const float *step;     // (columns)
    const int32_t *column; // (columns) sum of weight codes
    const float *bias;     // (columns)
    int64_t columns;
    void *y;
    int64_t stride;        // of y's rows, in elements
    int half, activate;
} Ends;

// Some rows of activations: where they are, and what their integers stand for.
typedef struct {
    const int8_t *q;       // first code of the first row
    int64_t stride;        // from row to row
    int64_t width;         // codes of a row that lie together: a segment
    int64_t segments, jump; // how many segments a row has, and from one to the next
    const float *scale;    // of each row
    const int32_t *zero;
    const int32_t *sum;    // 128 * sum of codes
    int64_t first;         // place of the first row in y
} Block;

// What follows the product of `count` rows and 64 columns from `col`.
static void finish(const int32_t *acc, int count, int64_t col, const Block *rows, const Ends *e) {
    for (int c = 0; c < 4 && col + 16 * c < e->columns; c++) {
        int64_t n = col + 16 * c;
        __m512i sums = _mm512_loadu_si512(e->column + n);
        __m512 steps = _mm512_loadu_ps(e->step + n), bias = _mm512_loadu_ps(e->bias + n);
        for (int r = 0; r < count; r++) {
            __m512i v = _mm512_load_si512(acc + r * COLS + 16 * c);
            v = _mm512_sub_epi32(v, _mm512_set1_epi32(rows->sum[r]));
            v = _mm512_sub_epi32(v, _mm512_mullo_epi32(sums, _mm512_set1_epi32(rows->zero[r])));
            __m512 f = _mm512_mul_ps(_mm512_cvtepi32_ps(v), steps);
            f = _mm512_fmadd_ps(f, _mm512_set1_ps(rows->scale[r]), bias);
            if (e->activate) f = gelu(f);
            store_any(e->y, (rows->first + r) * e->stride + n, e->half, f);
        }
    }
}

#define ZERO(R)                                                                                    \
    __m512i a##R##0 = _mm512_setzero_si512(), a##R##1 = a##R##0, a##R##2 = a##R##0, a##R##3 = a##R##0;
#define STEP(R)                                                                                    \
    memcpy(&four, a + R * stride + k, 4);                                                           \
    v = _mm512_set1_epi32(four);                                                                   \
    a##R##0 = _mm512_dpbusd_epi32(a##R##0, w0, v);                                                 \
    a##R##1 = _mm512_dpbusd_epi32(a##R##1, w1, v);                                                 \
    a##R##2 = _mm512_dpbusd_epi32(a##R##2, w2, v);                                                 \
    a##R##3 = _mm512_dpbusd_epi32(a##R##3, w3, v);
#define KEEP(R)                                                                                    \
    _mm512_store_si512(acc + R * COLS, a##R##0);                                                   \
    _mm512_store_si512(acc + R * COLS + 16, a##R##1);                                              \
    _mm512_store_si512(acc + R * COLS + 32, a##R##2);                                              \
    _mm512_store_si512(acc + R * COLS + 48, a##R##3);

// COUNT rows x 64 columns over all segments.
#define TILE(COUNT)                                                                                \
    static void tile_##COUNT(const Block *rows, const uint8_t *panel, int64_t col,                 \
                             const Ends *e) {                                                      \
        int32_t acc[COUNT * COLS] __attribute__((aligned(64)));                                    \
        const int64_t width = rows->width, stride = rows->stride;                                  \
        EACH_##COUNT(ZERO)                                                                         \
        for (int64_t part = 0; part < rows->segments; part++) {                                    \
            const int8_t *a = rows->q + part * rows->jump;                                         \
            for (int64_t k = 0; k < width; k += 4, panel += 256) {                                 \
                __m512i w0 = _mm512_load_si512(panel), w1 = _mm512_load_si512(panel + 64);         \
                __m512i w2 = _mm512_load_si512(panel + 128), v;                                    \
                __m512i w3 = _mm512_load_si512(panel + 192);                                       \
                int32_t four;                                                                      \
                EACH_##COUNT(STEP)                                                                 \
            }                                                                                      \
        }                                                                                          \
        EACH_##COUNT(KEEP)                                                                         \
        finish(acc, COUNT, col, rows, e);                                                          \
    }
TILE(1)
TILE(6)

static void advance(Block *rows, int64_t count) {
    rows->q += count * rows->stride;
    rows->scale += count, rows->zero += count, rows->sum += count, rows->first += count;
}

static void rows_of_panel(Block rows, int64_t count, const uint8_t *panel, int64_t col,
                          const Ends *e) {
    for (; count >= ROWS; count -= ROWS, advance(&rows, ROWS)) tile_6(&rows, panel, col, e);
    for (; count > 0; count--, advance(&rows, 1)) tile_1(&rows, panel, col, e);
}

// A panel of nibbles to bytes (code * multiplier + 128).
//   multiplier (width / group, 64) int8 for this panel, group a multiple of 4; null for all ones.
static void expand(const uint8_t *nibbles, const int8_t *multiplier, int64_t group, int64_t width,
                   uint8_t *panel) {
    const __m512i low = _mm512_set1_epi8(15), eight = _mm512_set1_epi8(8);
    const __m512i bias = _mm512_set1_epi8((char)128);
    for (int64_t k = 0; k < width; k += 4) {
        for (int pair = 0; pair < 2; pair++, nibbles += 64, panel += 128) {
            __m512i both = _mm512_loadu_si512(nibbles);
            __m512i codes[2] = {_mm512_and_si512(both, low),
                                _mm512_and_si512(_mm512_srli_epi16(both, 4), low)};
            for (int i = 0; i < 2; i++) {
                __m512i c = _mm512_sub_epi8(codes[i], eight);
                if (multiplier) {
                    // Each column's multiplier, four times over.
                    const int8_t *m = multiplier + (k / group) * 64 + (2 * pair + i) * 16;
                    __m512i wide = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)m));
                    wide = _mm512_or_si512(wide, _mm512_slli_epi32(wide, 16));
                    __m512i even = _mm512_srai_epi16(_mm512_slli_epi16(c, 8), 8);
                    __m512i odd = _mm512_srai_epi16(c, 8);
                    even = _mm512_and_si512(_mm512_mullo_epi16(even, wide), _mm512_set1_epi16(255));
                    odd = _mm512_slli_epi16(_mm512_mullo_epi16(odd, wide), 8);
                    c = _mm512_or_si512(even, odd);
                }
                _mm512_store_si512(panel + 64 * i, _mm512_add_epi8(c, bias));
            }
        }
    }
}

// y = activations times weights, see the head of this file.
//   q (rows, width) int8; panels: ceil(columns / 64) panels; bits 8 or 4; columns a multiple of 16
//   (steps, sums and bias are padded to 64 by the caller); y float32 or bf16 (half).
// Returns 0, or 1 when there is no memory for the expanded panels.
int multiply(const int8_t *q, const float *scale, const int32_t *zero, const int32_t *sum,
             int64_t rows, int64_t width, const uint8_t *panels, int bits,
             const int8_t *multiplier, int64_t group, const float *step, const int32_t *column,
             const float *bias, int64_t columns, void *y, int64_t stride, int half, int activate) {
    Ends e = {step, column, bias, columns, y, stride, half, activate};
    Block all = {q, width, width, 1, 0, scale, zero, sum, 0};
    int64_t count = (columns + COLS - 1) / COLS;
    int failed = 0;
#pragma omp parallel
    {
        uint8_t *scratch = NULL;
        if (bits == 4 && posix_memalign((void **)&scratch, 64, width * COLS)) {
#pragma omp atomic write
            failed = 1;
            scratch = NULL;
        }
#pragma omp for schedule(dynamic, 1)
        for (int64_t p = 0; p < count; p++) {
            const uint8_t *panel = panels + p * width * COLS;
            if (bits == 4) {
                if (!scratch) continue;
                expand(panels + p * width * (COLS / 2),
                       multiplier ? multiplier + p * (width / group) * COLS : NULL, group, width,
                       scratch);
                panel = scratch;
            }
            rows_of_panel(all, rows, panel, p * COLS, &e);
        }
        free(scratch);
    }
    return failed;
}

// Whole maps to signed bytes with one scale and one zero point an image, and a border of zeros.
//   x (images, height, width, channels) float32; q (images, height + 2 border, width + 2 border,
//   channels); scale, zero (images); sum like q without channels: 128 * sum of a pixel's codes.
//   width * channels and channels: multiples of 16. Returns 0, or 1 without memory.
int quantize_maps(const float *x, int64_t images, int64_t height, int64_t width, int64_t channels,
                  int64_t border, int8_t *q, float *scale, int32_t *zero, int32_t *sum) {
    int64_t row = width * channels, lines = images * height;
    int64_t wide = width + 2 * border, high = height + 2 * border;
    float *least = malloc(2 * lines * sizeof(float)), *most = least + lines;
    if (!least) return 1;
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (int64_t i = 0; i < lines; i++) {
            __m512 lo = _mm512_setzero_ps(), hi = _mm512_setzero_ps();
            for (int64_t k = 0; k < row; k += 16) {
                __m512 v = _mm512_loadu_ps(x + i * row + k);
                lo = _mm512_min_ps(lo, v), hi = _mm512_max_ps(hi, v);
            }
            least[i] = _mm512_reduce_min_ps(lo), most[i] = _mm512_reduce_max_ps(hi);
        }
#pragma omp single
        for (int64_t b = 0; b < images; b++) {
            float lo = 0, hi = 0;
            for (int64_t i = b * height; i < (b + 1) * height; i++) {
                lo = least[i] < lo ? least[i] : lo;
                hi = most[i] > hi ? most[i] : hi;
            }
            float step = (hi - lo) / 255;
            if (!(step > 0)) step = 1;
            int z = (int)lrintf(-128 - lo / step);
            zero[b] = z < -128 ? -128 : z > 127 ? 127 : z;
            scale[b] = step;
        }
#pragma omp for schedule(static)
        for (int64_t i = 0; i < images * high; i++) {
            int64_t b = i / high, y = i % high - border;
            int8_t *out = q + i * wide * channels;
            int32_t *total = sum + i * wide;
            int outside = y < 0 || y >= height;
            __m512 inverse = _mm512_set1_ps(1 / scale[b]);
            __m512i offset = _mm512_set1_epi32(zero[b]);
            for (int64_t u = 0; u < wide; u++, out += channels) {
                if (outside || u < border || u >= width + border) {
                    memset(out, (int8_t)zero[b], channels);
                    total[u] = 128 * (int32_t)channels * zero[b];
                    continue;
                }
                const float *from = x + ((b * height + y) * width + u - border) * channels;
                __m512i codes = _mm512_setzero_si512();
                for (int64_t k = 0; k < channels; k += 16) {
                    __m512i c = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(from + k), inverse));
                    c = _mm512_add_epi32(c, offset);
                    c = _mm512_min_epi32(_mm512_max_epi32(c, _mm512_set1_epi32(-128)),
                                         _mm512_set1_epi32(127));
                    codes = _mm512_add_epi32(codes, c);
                    _mm_storeu_si128((__m128i *)(out + k), _mm512_cvtepi32_epi8(c));
                }
                total[u] = 128 * _mm512_reduce_add_epi32(codes);
            }
        }
    }
    free(least);
    return 0;
}

#define LINES 4 // rows of the output a thread takes at a time, so that its maps stay in cache

// Convolution of maps from quantize_maps with 8-bit panels whose width runs over (row, column,
// channel) of the kernel; y (images, out_height, out_width, columns) float32.
void convolve(const int8_t *q, const float *scale, const int32_t *zero, const int32_t *sum,
              int64_t images, int64_t high, int64_t wide, int64_t channels, int64_t kernel,
              int64_t stride, const uint8_t *panels, const float *step, const int32_t *column,
              const float *bias, int64_t columns, float *y) {
    int64_t out_height = (high - kernel) / stride + 1, out_width = (wide - kernel) / stride + 1;
    int64_t count = (columns + COLS - 1) / COLS, strips = (out_height + LINES - 1) / LINES;
    Ends e = {step, column, bias, columns, y, columns, 0, 0};
#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t task = 0; task < images * strips; task++) {
        int64_t b = task / strips, begin = task % strips * LINES;
        int64_t end = begin + LINES < out_height ? begin + LINES : out_height;
        for (int64_t p = 0; p < count; p++) {
            const uint8_t *panel = panels + p * kernel * kernel * channels * COLS;
            for (int64_t v = begin; v < end; v++)
                for (int64_t u = 0; u < out_width; u += ROWS) {
                    int64_t rows = out_width - u < ROWS ? out_width - u : ROWS;
                    float scales[ROWS];
                    int32_t zeros[ROWS], sums[ROWS];
                    for (int64_t r = 0; r < rows; r++) {
                        scales[r] = scale[b], zeros[r] = zero[b], sums[r] = 0;
                        for (int64_t j = 0; j < kernel; j++)
                            for (int64_t i = 0; i < kernel; i++)
                                sums[r] += sum[(b * high + v * stride + j) * wide +
                                               (u + r) * stride + i];
                    }
                    Block block = {
                        q + ((b * high + v * stride) * wide + u * stride) * channels,
                        stride * channels, kernel * channels, kernel, wide * channels,
                        scales, zeros, sums, (b * out_height + v) * out_width + u};
                    rows_of_panel(block, rows, panel, p * COLS, &e);
                }
        }
    }
}
