// The target avx2: choices only.
#if !defined(__AVX2__) || !defined(__FMA__) || defined(__AVX512F__)
#error "targets/avx2.cpp needs -mavx2 -mfma and nothing newer"
#endif
#include "../simd/avx2.h"

namespace {
template <class Real>
struct Choices : Avx2<Real> {
  // rows of a register tile of 1, 2, 3 and 4 vectors
  static constexpr int tile_rows[5] = {0, 10, 6, 4, 3};
  static constexpr int single_row_blocks = 2;  // hidden blocks of a tile of one row
  static constexpr int cell_rows = 2;          // rows whose activations are interleaved
};
}  // namespace

#define LSTMX_TARGET_NAME avx2
#include "../generic/target.h"
