// The engine avx512_bf16: dot products of bf16 pairs in vector registers, twice as many multiply-adds an instruction as
// in float32. That is a gain where one product does (`medium`); three of them are slower than one of float32.
#if !defined(__AVX512F__) || !defined(__AVX512BF16__)
#error "engines/avx512_bf16.cpp needs -mavx512f -mavx512bf16"
#endif
#include <immintrin.h>
#include <string.h>

#include "../kernels.h"

namespace {

using lstmx::Bf16;
using lstmx::Index;
using lstmx::TileProduct;

constexpr Index tile_size = 512, row_size = 32, result_size = 256;
constexpr int pairs = 16;
constexpr int most_rows = 8;  // with two tiles of columns: 16 sums, and 3 registers for operands

// M rows of one tile of rows by two tiles of columns
template <int M>
void multiply_rows(const Bf16* a, const Bf16* left, const Bf16* right, Index blocks, float* c) {
  __m512 acc[M][2];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) acc[m][0] = acc[m][1] = _mm512_setzero_ps();
  for (Index k = 0; k < blocks; ++k, a += tile_size, left += tile_size, right += tile_size) {
#pragma GCC unroll 4
    for (int p = 0; p < pairs; ++p) {
      const __m512bh b0 = (__m512bh)_mm512_loadu_si512(left + p * row_size);
      const __m512bh b1 = (__m512bh)_mm512_loadu_si512(right + p * row_size);
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) {
        int pair;
        memcpy(&pair, a + m * row_size + 2 * p, sizeof pair);
        const __m512bh s = (__m512bh)_mm512_set1_epi32(pair);
        acc[m][0] = _mm512_dpbf16_ps(acc[m][0], s, b0);
        acc[m][1] = _mm512_dpbf16_ps(acc[m][1], s, b1);
      }
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) {
    _mm512_storeu_ps(c + m * 16, acc[m][0]);
    _mm512_storeu_ps(c + result_size + m * 16, acc[m][1]);
  }
}

template <int M = most_rows>
void run_rows(Index rows, const Bf16* a, const Bf16* left, const Bf16* right, Index blocks, float* c) {
  if (rows == M) return multiply_rows<M>(a, left, right, blocks, c);
  if constexpr (M > 1) run_rows<M - 1>(rows, a, left, right, blocks, c);
}

void multiply(const TileProduct& t) {
  const int columns = t.rows > 16 ? 2 : 4;
  for (Index first = 0; first < t.rows; first += 16) {
    const Index tile = first / 16, rows = t.rows - first < 16 ? t.rows - first : 16;
    for (int n = 0; n < columns; n += 2) {
      float* c = t.c + (tile * columns + n) * result_size;
      for (Index r = 0; r < rows; r += most_rows) {
        const Index count = rows - r < most_rows ? rows - r : most_rows;
        run_rows(count, t.a[tile] + r * row_size, t.b[n], t.b[n + 1], t.blocks, c + r * 16);
      }
    }
  }
}

void nothing() {}

}  // namespace

namespace lstmx {
constinit const Engine engine_avx512_bf16 = {
    "avx512_bf16", {&multiply, nullptr, nullptr}, &nothing, &nothing, {1.6, 0.0, 0.0}, 1,
};
}  // namespace lstmx
