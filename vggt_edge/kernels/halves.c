// Products of bf16 matrices for x86 with AVX512-BF16, and the sum that follows them in a block.
//
// Weights stay as torch holds them, (columns, width) row by row. A thread turns 64 of these rows
// into a panel in its cache, pairs of k of sixteen columns to a 64-byte load, as vdpbf16ps wants
// them; at some hundred rows of activations that costs a hundredth of the product.
#include "vectors.h"

#ifdef __AVX512BF16__

#define ROWS 6
#define COLS 64

// Sixteen vectors of sixteen 32-bit numbers, transposed.
static inline void transpose(__m512i v[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        v[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        v[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        v[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        v[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(v[i], v[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(v[i], v[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(v[i + 8], v[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(v[i + 8], v[i + 12], 0xdd);
    }
    for (int i = 0; i < 8; i++) {
        v[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        v[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    }
}

// `columns` (a multiple of 16, at most 64) rows of weights to a panel: pair of k, column, k.
static void make_panel(const bf16 *w, int64_t stride, int64_t columns, int64_t width, bf16 *panel) {
    for (int64_t c = 0; c < COLS; c += 16)
        for (int64_t k = 0; k < width; k += 32) {
            __m512i v[16];
            if (c >= columns) {
                for (int i = 0; i < 16; i++) v[i] = _mm512_setzero_si512();
            } else {
                for (int i = 0; i < 16; i++) v[i] = _mm512_loadu_si512(w + (c + i) * stride + k);
                transpose(v);
            }
            bf16 *to = panel + k * COLS + 2 * c;
            for (int i = 0; i < 16; i++) _mm512_store_si512(to + i * 2 * COLS, v[i]);
        }
}

typedef struct {
    const void *bias; // (columns) float32 or bf16, or null
    int bias_half;
    int64_t columns;
    bf16 *y;
    int64_t stride;
    int activate;
} Ends;

static void finish(const float *acc, int count, int64_t row, int64_t col, const Ends *e) {
    for (int c = 0; c < 4 && col + 16 * c < e->columns; c++) {
        int64_t n = col + 16 * c;
        __m512 bias = e->bias ? load_any(e->bias, n, e->bias_half) : _mm512_setzero_ps();
        for (int r = 0; r < count; r++) {
            __m512 v = _mm512_add_ps(_mm512_load_ps(acc + r * COLS + 16 * c), bias);
            if (e->activate) v = gelu(v);
            store_bf16(e->y + (row + r) * e->stride + n, v);
        }
    }
}

#define ZERO(R)                                                                                    \
    __m512 a##R##0 = _mm512_setzero_ps(), a##R##1 = a##R##0, a##R##2 = a##R##0, a##R##3 = a##R##0;
#define STEP(R)                                                                                    \
    memcpy(&two, a + R * stride + k, 4);                                                           \
    v = pairs(_mm512_set1_epi32(two));                                                             \
    a##R##0 = _mm512_dpbf16_ps(a##R##0, v, w0);                                                    \
    a##R##1 = _mm512_dpbf16_ps(a##R##1, v, w1);                                                    \
    a##R##2 = _mm512_dpbf16_ps(a##R##2, v, w2);                                                    \
    a##R##3 = _mm512_dpbf16_ps(a##R##3, v, w3);
#define KEEP(R)                                                                                    \
    _mm512_store_ps(acc + R * COLS, a##R##0);                                                      \
    _mm512_store_ps(acc + R * COLS + 16, a##R##1);                                                 \
    _mm512_store_ps(acc + R * COLS + 32, a##R##2);                                                 \
    _mm512_store_ps(acc + R * COLS + 48, a##R##3);

// COUNT rows x 64 columns.
#define TILE(COUNT)                                                                                \
    static void tile_##COUNT(const bf16 *a, int64_t stride, int64_t width, const bf16 *panel,      \
                             int64_t row, int64_t col, const Ends *e) {                            \
        float acc[COUNT * COLS] __attribute__((aligned(64)));                                      \
        EACH_##COUNT(ZERO)                                                                         \
        for (int64_t k = 0; k < width; k += 2, panel += 2 * COLS) {                                \
            __m512bh w0 = pairs(_mm512_load_si512(panel)), v;                                      \
            __m512bh w1 = pairs(_mm512_load_si512(panel + 32));                                    \
            __m512bh w2 = pairs(_mm512_load_si512(panel + 64));                                    \
            __m512bh w3 = pairs(_mm512_load_si512(panel + 96));                                    \
            int32_t two;                                                                           \
            EACH_##COUNT(STEP)                                                                     \
        }                                                                                          \
        EACH_##COUNT(KEEP)                                                                         \
        finish(acc, COUNT, row, col, e);                                                           \
    }
TILE(1)
TILE(6)

// y = x w^T + bias, through an exact GELU if asked.
//   x (rows, width) bf16, rows `x_stride` apart; w (columns, width) bf16, rows `w_stride` apart;
//   width a multiple of 32, columns of 16; y (rows, columns) bf16.
// Returns 0, or 1 when there is no memory for a panel a thread.
int multiply_halves(const bf16 *x, int64_t x_stride, int64_t rows, int64_t width, const bf16 *w,
                    int64_t w_stride, int64_t columns, const void *bias, int bias_half,
                    int activate, bf16 *y) {
    Ends e = {bias, bias_half, columns, y, columns, activate};
    int failed = 0;
#pragma omp parallel
    {
        bf16 *panel = NULL;
        if (posix_memalign((void **)&panel, 64, width * COLS * sizeof(bf16))) {
#pragma omp atomic write
            failed = 1;
            panel = NULL;
        }
#pragma omp for schedule(dynamic, 1)
        for (int64_t col = 0; col < columns; col += COLS) {
            if (!panel) continue;
            int64_t some = columns - col < COLS ? columns - col : COLS, row = 0;
            make_panel(w + col * w_stride, w_stride, some, width, panel);
            for (; row + ROWS <= rows; row += ROWS)
                tile_6(x + row * x_stride, x_stride, width, panel, row, col, &e);
            for (; row < rows; row++)
                tile_1(x + row * x_stride, x_stride, width, panel, row, col, &e);
        }
        free(panel);
    }
    return failed;
}

// sum = x + gain * y, row by row; x and sum float32, maybe the same; y bf16; width a multiple of 16.
void add_scaled(const float *x, const bf16 *y, const float *gain, int64_t rows, int64_t width,
                float *sum) {
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++)
        for (int64_t k = 0; k < width; k += 16) {
            int64_t i = r * width + k;
            __m512 v = _mm512_fmadd_ps(load_bf16(y + i), _mm512_loadu_ps(gain + k),
                                       _mm512_loadu_ps(x + i));
            _mm512_storeu_ps(sum + i, v);
        }
}

#endif
