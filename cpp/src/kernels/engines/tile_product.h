// The product of an engine that has tile registers: eight of 16 rows by 64 bytes, as in AMX. Ops names the operations;
// registers are numbers known to the compiler.
//
// Four sums are in flight, which hides the latency of a product: two tiles of rows by two of columns, or one by four.
// The small products come first, for all k, so that their sum is rounded while it is small; the order is the same in
// both forms.
#pragma once

#include "../kernels.h"

namespace {

using lstmx::Bf16;
using lstmx::Index;
using lstmx::result_size;
using lstmx::tile_size;
using lstmx::TileProduct;

template <class Ops, int parts>
struct TileProducts {
  Ops tiles;
  const TileProduct& t;
  const Bf16 *a[2], *b[4];

  explicit TileProducts(const TileProduct& product) : t(product) {}

  // part i of a times part j of b; `loads_a`: whether a's tiles are not there yet, of two by two
  template <int i, int j, bool loads_a, bool loads_b>
  void multiply_square() {
    if constexpr (loads_a) {
      tiles.template load<4>(a[0] + i * tile_size);
      tiles.template load<5>(a[1] + i * tile_size);
    }
    if constexpr (loads_b) {
      tiles.template load<6>(b[0] + j * tile_size);
      tiles.template load<7>(b[1] + j * tile_size);
    }
    tiles.template multiply<0, 4, 6>();
    tiles.template multiply<1, 4, 7>();
    tiles.template multiply<2, 5, 6>();
    tiles.template multiply<3, 5, 7>();
  }

  // the same of one by four
  template <int i, int j, bool loads_a, bool>
  void multiply_row() {
    if constexpr (loads_a) tiles.template load<4>(a[0] + i * tile_size);
    tiles.template load<5>(b[0] + j * tile_size);
    tiles.template multiply<0, 4, 5>();
    tiles.template load<6>(b[1] + j * tile_size);
    tiles.template multiply<1, 4, 6>();
    tiles.template load<7>(b[2] + j * tile_size);
    tiles.template multiply<2, 4, 7>();
    tiles.template load<5>(b[3] + j * tile_size);
    tiles.template multiply<3, 4, 5>();
  }

  template <bool square, int i, int j, bool loads_a, bool loads_b>
  void multiply() {
    if constexpr (square) {
      multiply_square<i, j, loads_a, loads_b>();
    } else {
      multiply_row<i, j, loads_a, loads_b>();
    }
  }

  template <bool square, class Body>
  void for_blocks(const Body& body) {
    constexpr int rows = square ? 2 : 1, columns = square ? 2 : 4;
    for (int m = 0; m < rows; ++m) a[m] = t.a[m];
    for (int n = 0; n < columns; ++n) b[n] = t.b[n];
    for (Index k = 0; k < t.blocks; ++k) {
      body();
      for (int m = 0; m < rows; ++m) a[m] += parts * tile_size;
      for (int n = 0; n < columns; ++n) b[n] += parts * tile_size;
    }
  }

  template <bool square>
  void run() {
    tiles.template zero<0>();
    tiles.template zero<1>();
    tiles.template zero<2>();
    tiles.template zero<3>();
    // part 0 carries the first 8 bits of a number, part 1 the next, part 2 the rest
    if constexpr (parts == 2) {
      for_blocks<square>([&] {
        multiply<square, 1, 0, true, true>();
        multiply<square, 0, 1, true, true>();
      });
    }
    if constexpr (parts == 3) {
      for_blocks<square>([&] {
        multiply<square, 2, 0, true, true>();
        multiply<square, 1, 0, true, false>();
        multiply<square, 1, 1, false, true>();
        multiply<square, 0, 1, true, false>();
        multiply<square, 0, 2, false, true>();
      });
    }
    for_blocks<square>([&] { multiply<square, 0, 0, true, true>(); });
    tiles.template store<0>(t.c);
    tiles.template store<1>(t.c + result_size);
    tiles.template store<2>(t.c + 2 * result_size);
    tiles.template store<3>(t.c + 3 * result_size);
  }
};

template <class Ops, int parts>
void multiply_tiles(const TileProduct& t) {
  TileProducts<Ops, parts> product(t);
  if (t.rows > 16) {
    product.template run<true>();
  } else {
    product.template run<false>();
  }
}

}  // namespace
