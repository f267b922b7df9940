// What an engine does of a backward pass: dH = dG U and dX = dG W step by step, of the same split rows of dG, and
// dW = dG^T x, dU = dG^T h by blocks of a chunk's rows, [features][gates] as the panels are.
//   split backward  U, then W: for each tile of columns [gate_blocks][part][tile], the gates in the order of the tape:
//   two
//                   blocks of k for a wide block, (i, f) and (g, o); one for two quads
#pragma once

namespace {

template <class S>
struct TileBackward : BackwardFrame<S> {
  using F = BackwardFrame<S>;
  using L = Layout<S>;
  using T = Tiles<S>;
  using Vec = typename S::Vec;
  using Context = typename F::Context;
  using Rows = typename F::Rows;
  using L::W, L::G, L::PW, L::QW;
  static constexpr Index row_blocks = row_block / T::depth;  // blocks of k of the rows summed together

  static Index gate_blocks(Index H) { return 2 * (H / W) + (L::quads(H) + 1) / 2; }

  static Index split_size(Index I, Index H, Index P, int parts) {
    return (T::count(P) + T::count(I)) * gate_blocks(H) * parts * T::size;
  }

  // a quad's numbers that are those of hidden units
  static unsigned valid_of_quad(Index H, Index quad) {
    const Index units = H % W - quad * 4;
    return units >= 4 ? 0xffff : units <= 0 ? 0 : ((1u << units) - 1) * 0x1111;
  }

  static bool split(const float* packed, Index I, Index H, Index P, int parts, Bf16* to) {
    bool fits = true;
    T::with_parts(parts, [&]<int n>() {
      const Index widths[] = {P, I};
      for (const Index columns : widths) {
        for_panels<S>(columns, [&]<class X>(Index first, Index vectors, Index) {
          const float* panel = packed + first * G * H;
          for (Index v = 0; v < vectors; ++v, panel += X::width) {
            fits &= T::template split_columns<n>(gate_blocks(H) * T::depth, to, [&](Index k) {
              const Index row = packed_row(H, k);
              return row < 0 ? S::set(0.0f) : S::load_n(panel + row * vectors * X::width, X::width);
            });
            to += gate_blocks(H) * n * T::size;
          }
        });
        packed += G * H * L::vectors(columns) * W;
      }
    });
    return fits;
  }

  // where the k-th number of a split row of dG is in the packed weights; -1: nowhere
  static Index packed_row(Index H, Index k) {
    const Index full = H / W;
    if (k < full * PW) return k;
    const Index quad = (k - full * PW) / QW, lane = (k - full * PW) % QW;
    const Index left = H % W - quad * 4, units = left < 4 ? left : 4;
    if (units <= 0 || lane % 4 >= units) return -1;
    return full * PW + quad * QW + lane / 4 * units + lane % 4;
  }

  // of a thread: the rows of a step, which of them are out of range, and four tiles of gates
  static Index step_size(const RecurrentSizes& n) { return T::count(n.B) * gate_blocks(n.H) * n.parts * T::floats; }
  static Index columns_size(const RecurrentSizes& n) { return 4 * row_blocks * n.parts * T::floats; }
  static Index thread_size(const RecurrentSizes& n) { return step_size(n) + (n.B + W - 1) / W * W + columns_size(n); }
  // of all: the features of a block of rows, and which tiles of them are in range
  static Index features_size(const RecurrentSizes& n) {
    return (T::count(n.I) + T::count(n.P)) * row_blocks * n.parts * T::floats;
  }
  static Index work_size(const RecurrentSizes& n, int threads) {
    const Index flags = (T::count(n.I) + T::count(n.P) + W - 1) / W * W;
    return n.parts == 0 ? 0 : features_size(n) + flags + threads * thread_size(n);
  }

  struct Work {
    Bf16 *features, *rows, *columns;
    unsigned char *fits, *unfit;
  };

  static Work work_of(const Context& k, const Team& team) {
    const RecurrentSizes& n = k.a.size;
    float* of_thread = k.tiles + work_size(n, team.index);
    float* flags = of_thread + step_size(n);
    return {reinterpret_cast<Bf16*>(k.tiles), reinterpret_cast<Bf16*>(of_thread),
            reinterpret_cast<Bf16*>(flags + (n.B + W - 1) / W * W),
            reinterpret_cast<unsigned char*>(k.tiles + features_size(n)), reinterpret_cast<unsigned char*>(flags)};
  }

  // ---- a step

  static void split_rows(const Context& k, const float* gates, Index row, Index count, const Work& work) {
    const RecurrentSizes& n = k.a.size;
    const Index full = n.H / W, blocks = gate_blocks(n.H);
    for (Index r = 0; r < count; ++r) work.unfit[r] = 0;
    T::with_parts(n.parts, [&]<int parts>() {
      T::template split_rows<parts>(
          count, 0, blocks, blocks, work.rows, work.unfit, [&](Index r, Index b, Vec& low, Vec& high) {
            if (b < 2 * full) {
              const float* from = gates + b / 2 * n.rows * PW + (row + r) * PW + b % 2 * 2 * W;
              low = S::load(from);
              high = S::load(from + W);
              return;
            }
            const Index quad = (b - 2 * full) * 2;
            const float* from = gates + full * n.rows * PW + quad * n.rows * QW + (row + r) * QW;
            low = S::load_lanes_of(from, valid_of_quad(n.H, quad));
            const unsigned valid = valid_of_quad(n.H, quad + 1);
            high = valid ? S::load_lanes_of(from + n.rows * QW, valid) : S::set(0.0f);
          });
    });
  }

  // dh and dx from dG of step t, for the part's positions alive then; `carries`: whether dh is wanted. by_units(row):
  // the same without the engine, of one row of the tape; the first is of dh, the second of dx.
  template <class Carry, class Input>
  static void step_back(const Context& k, Index t, const Part& part, const Team& team, bool carries, const Carry& carry,
                        const Input& input) {
    const RecurrentSizes& n = k.a.size;
    const Schedule& s = k.a.schedule;
    const Work work = work_of(k, team);
    const Index begin = part.positions.begin, count = alive_in(s, t, part.positions), row = s.first[t] + begin;
    const Index all = gate_blocks(n.H), of_u = T::count(n.P) * all * n.parts * T::size;
    split_rows(k, k.gates_h, row, count, work);
    if (carries) {
      const Range columns{part.vectors.begin, part.vectors.end < T::count(n.P) ? part.vectors.end : T::count(n.P)};
      T::multiply(*k.a.engine, n.parts, work.rows, all, count, k.a.split, all, all, columns,
                  [&](Index first, Index rows, Index tile, const float* c) {
                    float* to = k.dh + (begin + first) * k.stride + tile * W;
                    for (Index r = 0; r < rows; ++r) S::store(to + r * k.stride, S::load(c + r * T::side));
                  });
      T::for_unfit(work.unfit, count, [&](Index r) { carry(row + r); });
    }
    if (k.a.dx.data == nullptr) return;
    if (k.gates_x != k.gates_h) split_rows(k, k.gates_x, row, count, work);
    const Range columns = part.meets ? team.share(T::count(n.I)) : Range{0, T::count(n.I)};
    T::multiply(*k.a.engine, n.parts, work.rows, all, count, k.a.split + of_u, all, all, columns,
                [&](Index first, Index rows, Index tile, const float* c) {
                  const Index lanes = n.I - tile * W < W ? n.I - tile * W : W;
                  for (Index r = 0; r < rows; ++r) {
                    if (work.unfit[first + r] != 0) continue;
                    float* to = k.a.dx.data + t * k.a.dx.step + s.order[begin + first + r] * k.a.dx.row + tile * W;
                    store_lanes<S>(to, S::load(c + r * T::side), lanes);
                  }
                });
    if (part.meets && team.index > 0) return;
    T::for_unfit(work.unfit, count, [&](Index r) { input(row + r); });
  }

  // ---- a chunk

  // the tiles of features of `count` rows of a chunk from r on
  static void split_features(const Context& k, const Rows& rows, Index r, Index count, const Team& team,
                             const Work& work) {
    const RecurrentSizes& n = k.a.size;
    const Index of_x = T::count(n.I), tile_size = T::blocks(count) * n.parts * T::size;
    const Range share = team.share(of_x + T::count(n.P));
    T::with_parts(n.parts, [&]<int parts>() {
      for (Index tile = share.begin; tile < share.end; ++tile) {
        const bool x = tile < of_x;
        const Index first = (x ? tile : tile - of_x) * W, left = (x ? n.I : n.P) - first;
        const float* const* from = (x ? rows.x : rows.h) + r;
        work.fits[tile] = T::template split_transposed<parts>(count, work.features + tile * tile_size, [&](Index row) {
          return load_lanes<S>(from[row] + first, left < W ? left : W);
        });
      }
    });
  }

  // panels += dG^T [x | h_prev | 1]
  static void weight_gradients(const Context& k, Index begin, Index end, const Rows& rows, const Team& team) {
    const RecurrentSizes& n = k.a.size;
    const Index first_row = k.a.schedule.first[begin], tiles = L::gate_tiles(n.H);
    const Range groups = team.share((tiles + 3) / 4);
    const Work work = work_of(k, team);
    for_row_blocks(k.a.schedule.first[end] - first_row, [&](Index r, Index count) {
      team.barrier();  // the rows before are done with
      split_features(k, rows, r, count, team, work);
      team.barrier();
      for (Index group = groups.begin; group < groups.end; ++group) {
        const Range columns{group * 4, group * 4 + 4 < tiles ? group * 4 + 4 : tiles};
        const bool fit = split_gates(k, k.gates_x, first_row + r, count, columns, work);
        add_features(k, rows.x + r, 0, n.I, k.gates_x, first_row + r, count, columns, fit, work);
        const bool fit_h =
            k.gates_h == k.gates_x ? fit : split_gates(k, k.gates_h, first_row + r, count, columns, work);
        add_features(k, rows.h + r, n.I, n.P, k.gates_h, first_row + r, count, columns, fit_h, work);
        if (n.normalized) continue;  // the bias's come with the gains'
        for (Index tile = columns.begin; tile < columns.end; ++tile) {
          const auto at = L::gate_tile(n.H, tile);
          add_column_sums<S, 1>(k.gates + L::place_of(at, n.rows) + (first_row + r) * at.row, 0, at.row, count,
                                F::panel_of(k, at.block, n.I + n.P) + at.lane, W);
        }
      }
    });
  }

  // dG of `count` rows, the tiles `columns` of it; false: one is out of range
  static bool split_gates(const Context& k, const float* gates, Index row, Index count, const Range& columns,
                          const Work& work) {
    const RecurrentSizes& n = k.a.size;
    bool fits = true;
    T::with_parts(n.parts, [&]<int parts>() {
      for (Index tile = columns.begin; tile < columns.end; ++tile) {
        const auto at = L::gate_tile(n.H, tile);
        const unsigned valid = at.block.quads == 0 ? 0xffff : valid_of_quad(n.H, at.lane / QW);
        const float* from = gates + L::place_of(at, n.rows) + row * at.row;
        Bf16* to = work.columns + (tile - columns.begin) * T::blocks(count) * parts * T::size;
        fits &= T::template split_columns<parts>(count, to,
                                                 [&](Index r) { return S::load_lanes_of(from + r * at.row, valid); });
      }
    });
    return fits;
  }

  // panels += of `features` features, the first being `first` of all; `fit`: whether the columns are
  static void add_features(const Context& k, const float* const* from, Index first, Index features, const float* gates,
                           Index row, Index count, const Range& columns, bool fit, const Work& work) {
    const RecurrentSizes& n = k.a.size;
    const Index blocks = T::blocks(count), before = first == 0 ? 0 : T::count(n.I);
    for (Index tile = 0; tile < T::count(features); ++tile) fit = fit && work.fits[before + tile] != 0;
    if (!fit) return add_by_units(k, from, first, features, gates, row, count, columns);
    T::multiply(*k.a.engine, n.parts, work.features + before * blocks * n.parts * T::size, blocks, features,
                work.columns, blocks, blocks, {0, columns.end - columns.begin},
                [&](Index feature, Index m, Index tile, const float* c) {
                  const auto at = L::gate_tile(n.H, columns.begin + tile);
                  const Index panel_row = L::gates_of(at.block);
                  float* to = F::panel_of(k, at.block, first + feature) + at.lane;
                  for (Index i = 0; i < m; ++i, to += panel_row)
                    S::store(to, S::add(S::load(to), S::load(c + i * T::side)));
                });
  }

  static void add_by_units(const Context& k, const float* const* from, Index first, Index features, const float* gates,
                           Index row, Index count, const Range& columns) {
    for (Index tile = columns.begin; tile < columns.end; ++tile) {
      const auto at = L::gate_tile(k.a.size.H, tile);
      const float* b = gates + L::place_of(at, k.a.size.rows) + row * at.row;
      for_tiles(0, features, S::tile_rows[1], [&](Index feature, Index m) {
        float* to = F::panel_of(k, at.block, first + feature) + at.lane;
        run_outer<S, 1>(m, {from, feature, nullptr, b, 0, at.row, count, to, L::gates_of(at.block), W});
      });
    }
  }
};

}  // namespace
