// The target portable: choices only. Baseline x86-64, or any other architecture.
#if defined(__AVX__)
#error "targets/portable.cpp is for the baseline: build it without -mavx or -march=native"
#endif
#include "../simd/portable.h"

namespace {
template <class Real>
struct Choices;

template <>
struct Choices<float> : Portable<float> {
  // rows of a register tile of 1, 2, 3 and 4 vectors
  static constexpr int tile_rows[5] = {0, 8, 5, 3, 2};
  static constexpr int single_row_blocks = 2;  // hidden blocks of a tile of one row
  static constexpr int cell_rows = 1;          // rows whose activations are interleaved
};

template <>
struct Choices<double> : Portable<double> {  // a vector takes two registers
  static constexpr int tile_rows[5] = {0, 5, 2, 1, 1};
  static constexpr int single_row_blocks = 1;
  static constexpr int cell_rows = 1;
};
}  // namespace

#define LSTMX_TARGET_NAME portable
#include "../generic/target.h"
