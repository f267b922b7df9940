// What an engine does of a staged forward step: the gates of a step are products of rows of [x | h] and the columns of
// the weights, all of K in one chain.
//   split forward  for each tile of gates (Layout::gate_tile) [blocks of x, blocks of h][part][tile]
#pragma once

namespace {

// What a product of a step goes to, laid out as gates are, and what it is of; `gates`: added to the bias, or what is
// there.
template <class Real>
struct GateProduct {
  Real* plane;
  bool x, h, gates;
};

template <class S>
struct TileForward : ForwardFrame<S> {
  using F = ForwardFrame<S>;
  using L = Layout<S>;
  using T = Tiles<S>;
  using Context = typename F::Context;
  using L::W, L::G;

  static Index split_size(Index I, Index H, Index P, int parts) {
    return L::gate_tiles(H) * (T::blocks(I) + T::blocks(P)) * parts * T::size;
  }

  static bool split(const float* packed, Index I, Index H, Index P, int parts, Bf16* to) {
    bool fits = true;
    T::with_parts(parts, [&]<int n>() {
      for (Index tile = 0; tile < L::gate_tiles(H); ++tile) {
        const auto at = L::gate_tile(H, tile);
        const Index row = L::gates_of(at.block);
        const float* panel = packed + L::panel_of(at.block, I, P) + at.lane + row;
        const Index depths[] = {I, P};
        for (const Index depth : depths) {
          fits &= T::template split_columns<n>(depth, to, [&](Index k) { return S::load(panel + k * row); });
          panel += depth * row;
          to += T::blocks(depth) * n * T::size;
        }
      }
    });
    return fits;
  }

  static void split_step(const Context& k, Index count) {
    const RecurrentSizes& n = k.a.size;
    const Index first = k.part.positions.begin, all = F::split_blocks(n);
    for (Index r = 0; r < count; ++r) k.unfit[r] = 0;
    T::with_parts(n.parts, [&]<int parts>() {
      T::template split_dense_rows<parts>(count, n.I, 0, all, k.split, k.unfit,
                                          [&](Index r) { return k.x[first + r]; });
      T::template split_dense_rows<parts>(count, n.P, T::blocks(n.I), all, k.split, k.unfit,
                                          [&](Index r) { return k.entering[first + r]; });
    });
  }

  static void multiply(const Context& k, const GateProduct<float>& product, Index row, Index count) {
    const RecurrentSizes& n = k.a.size;
    const Index all = F::split_blocks(n), of_x = T::blocks(n.I);
    const Range blocks{product.x ? 0 : of_x, product.h ? all : of_x};
    const Index skipped = blocks.begin * n.parts * T::size;
    const Index full = n.H / W, begin = k.part.vectors.begin, end = k.part.vectors.end;
    const Range tiles{begin * G, end > full ? L::gate_tiles(n.H) : end * G};
    T::multiply(*k.a.engine, n.parts, k.split + skipped, all, count, k.a.split + skipped, all,
                blocks.end - blocks.begin, tiles, [&](Index first, Index rows, Index tile, const float* c) {
                  const auto at = L::gate_tile(n.H, tile);
                  const float* bias = k.a.packed + L::panel_of(at.block, n.I, n.P) + at.lane;
                  const auto start = product.gates ? S::load(bias) : S::set(0.0f);
                  float* to = product.plane + L::place_of(at, k.gate_rows) + (row + first) * at.row;
                  for (Index r = 0; r < rows; ++r) S::store(to + r * at.row, S::add(start, S::load(c + r * T::side)));
                });
  }
};

}  // namespace
