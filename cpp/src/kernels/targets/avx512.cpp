// The target avx512: choices only.
#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512DQ__) || !defined(__AVX512VL__)
#error "targets/avx512.cpp needs -mavx512f -mavx512bw -mavx512dq -mavx512vl"
#endif
#include "../simd/avx512.h"
#include "../simd/avx2.h"
//
#include "../simd/avx512_double.h"

namespace {
struct HalfVectors : Avx2 {  // for the end of columns, where half the width is half the work
  static constexpr int registers = 32;
  static constexpr int tile_rows[2] = {0, 14};
};
struct Choices : Avx512 {
  using Narrow = HalfVectors;
  static constexpr bool fuses = true;  // the products and the cell in one tile: faster, and more code
  // rows of a register tile of 1, 2, 3 and 4 vectors
  static constexpr int tile_rows[5] = {0, 14, 12, 8, 6};
  static constexpr int single_row_blocks = 4;  // hidden blocks of a tile of one row
  static constexpr int cell_rows = 3;          // rows whose activations are interleaved
};
struct Choices64 : Avx512Double {
  static constexpr bool fuses = false;
  static constexpr int tile_rows[5] = {0, 14, 12, 8, 6};
};
}  // namespace

#define LSTMX_TARGET_NAME avx512
#include "../generic/target.h"
