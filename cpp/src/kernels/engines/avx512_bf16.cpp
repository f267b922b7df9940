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
using lstmx::result_size;
using lstmx::tile_size;
using lstmx::TileProduct;

constexpr Index row_size = 32;  // numbers of a row of a tile
constexpr int pairs = 16;

// M rows of one tile of rows by V tiles of columns
template <int M, int V>
void multiply_rows(const Bf16* a, const Bf16* const* b, Index blocks, float* c) {
  __m512 acc[M][V];
  const Bf16* column[V];
#pragma GCC unroll 8
  for (int v = 0; v < V; ++v) column[v] = b[v];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) acc[m][v] = _mm512_setzero_ps();
  }
  for (Index k = 0; k < blocks; ++k, a += tile_size) {
#pragma GCC unroll 4
    for (int p = 0; p < pairs; ++p) {
      __m512bh right[V];
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) right[v] = (__m512bh)_mm512_loadu_si512(column[v] + p * row_size);
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) {
        int pair;
        memcpy(&pair, a + m * row_size + 2 * p, sizeof pair);
        const __m512bh left = (__m512bh)_mm512_set1_epi32(pair);
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) acc[m][v] = _mm512_dpbf16_ps(acc[m][v], left, right[v]);
      }
    }
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) column[v] += tile_size;
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) _mm512_storeu_ps(c + v * result_size + m * 16, acc[m][v]);
  }
}

template <int V, int M>
void run_rows(Index rows, const Bf16* a, const Bf16* const* b, Index blocks, float* c) {
  if (rows == M) return multiply_rows<M, V>(a, b, blocks, c);
  if constexpr (M > 1) run_rows<V, M - 1>(rows, a, b, blocks, c);
}

// a tile of `rows` rows by V of columns, in groups of at most `most` rows, of equal size but for one
template <int V, int most>
void multiply_tile(const Bf16* a, Index rows, const Bf16* const* b, Index blocks, float* c) {
  const Index groups = (rows + most - 1) / most;
  for (Index r = 0, left = groups; left > 0; --left) {
    const Index count = (rows - r + left - 1) / left;
    run_rows<V, most>(count, a + r * row_size, b, blocks, c + r * 16);
    r += count;
  }
}

void multiply(const TileProduct& t) {
  if (t.rows > 16) {
    multiply_tile<2, 8>(t.a[0], 16, t.b, t.blocks, t.c);
    multiply_tile<2, 8>(t.a[1], t.rows - 16, t.b, t.blocks, t.c + 2 * result_size);
  } else {
    multiply_tile<4, 6>(t.a[0], t.rows, t.b, t.blocks, t.c);
  }
}

void nothing() {}

}  // namespace

namespace lstmx {
constinit const Engine engine_avx512_bf16 = {
    "avx512_bf16", {&multiply, nullptr, nullptr}, &nothing, &nothing, {1.95, 0.0, 0.0}, 8,
};
}  // namespace lstmx
