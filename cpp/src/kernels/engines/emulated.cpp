// The engine emulated: the tile code of amx on tiles in memory, with the arithmetic of its product instruction, so that
// both can be tested where there is no AMX. Always used, though far slower than what it stands for.
#include <string.h>

#include "tile_product.h"

namespace {

float widened(Bf16 x) {
  const uint32_t bits = uint32_t{x} << 16;
  float f;
  memcpy(&f, &bits, sizeof f);
  return f;
}

// TDPBF16PS: within a block of k the even ones of the pairs make one chain of multiply-adds and the odd ones another;
// both together are added to the sum. Denormal numbers count as zero, which is the floating-point state inside all
// kernels.
struct EmulatedTiles {
  static constexpr int rows = 16, columns = 16, pairs = 16;
  float sums[4][rows][columns];
  Bf16 operands[4][rows][2 * pairs];

  template <int t>
  void zero() {
    memset(sums[t], 0, sizeof sums[t]);
  }
  template <int t>
  void load(const Bf16* p) {
    memcpy(operands[t - 4], p, sizeof operands[t - 4]);
  }
  template <int t>
  void store(float* p) {
    memcpy(p, sums[t], sizeof sums[t]);
  }
  template <int d, int a, int b>
  void multiply() {
    float even_b[pairs][columns], odd_b[pairs][columns];
    for (int k = 0; k < pairs; ++k) {
      for (int n = 0; n < columns; ++n) {
        even_b[k][n] = widened(operands[b - 4][k][2 * n]);
        odd_b[k][n] = widened(operands[b - 4][k][2 * n + 1]);
      }
    }
    for (int m = 0; m < rows; ++m) {
      float even[columns] = {}, odd[columns] = {};
      for (int k = 0; k < pairs; ++k) {
        const float even_a = widened(operands[a - 4][m][2 * k]), odd_a = widened(operands[a - 4][m][2 * k + 1]);
        for (int n = 0; n < columns; ++n) {
          even[n] = __builtin_fmaf(even_a, even_b[k][n], even[n]);
          odd[n] = __builtin_fmaf(odd_a, odd_b[k][n], odd[n]);
        }
      }
      for (int n = 0; n < columns; ++n) sums[d][m][n] += even[n] + odd[n];
    }
  }
};

void nothing() {}

}  // namespace

namespace lstmx {
constinit const Engine engine_emulated = {
    "emulated",
    {&multiply_tiles<EmulatedTiles, 1>, &multiply_tiles<EmulatedTiles, 2>, &multiply_tiles<EmulatedTiles, 3>},
    &nothing,
    &nothing,
    {__builtin_inf(), __builtin_inf(), __builtin_inf()},
    16,
};
}  // namespace lstmx
