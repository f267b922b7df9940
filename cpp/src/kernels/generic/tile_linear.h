// What an engine does of the affine map: y and dx by groups of rows, dW by blocks of rows.
//   split forward, backward  for each tile of columns [blocks of in, or of out][part][tile]
#pragma once

namespace {

using lstmx::LinearBackward;
using lstmx::LinearForward;

template <class S>
struct TileLinear {
  using T = Tiles<S>;
  static constexpr Index W = S::width;
  static constexpr Index group = 8 * T::side;  // rows that are split together
  static constexpr Index row_blocks = row_block / T::depth;

  static Index forward_split_size(Index in, Index out, Index, int parts) {
    return T::count(out) * T::blocks(in) * parts * T::size;
  }
  static Index backward_split_size(Index in, Index out, Index, int parts) {
    return forward_split_size(out, in, 0, parts);
  }
  static bool split_forward(const float* packed, Index in, Index out, Index, int parts, Bf16* to) {
    return split(packed + T::count(out) * W, in, out, parts, to);
  }
  static bool split_backward(const float* packed, Index in, Index out, Index, int parts, Bf16* to) {
    return split(packed, out, in, parts, to);
  }

  // of [depth, columns], packed by groups of columns
  static bool split(const float* packed, Index depth, Index columns, int parts, Bf16* to) {
    bool fits = true;
    T::with_parts(parts, [&]<int n>() {
      for_column_groups<S>(columns, [&](Index first, Index vectors, Index) {
        for (Index v = 0; v < vectors; ++v, to += T::blocks(depth) * n * T::size) {
          const float* panel = packed + first * depth + v * W;
          fits &= T::template split_columns<n>(depth, to, [&](Index k) { return S::load(panel + k * vectors * W); });
        }
      });
    });
    return fits;
  }

  // of a thread: a group of rows in parts and which are out of range, or, for dW, dy as features and x as columns
  static Index thread_size(Index in, Index out, int parts) {
    const Index deeper = T::blocks(in > out ? in : out);
    const Index rows = group / T::side * deeper * parts * T::floats + group;
    const Index sums = (T::count(out) + 4) * row_blocks * parts * T::floats;
    return rows > sums ? rows : sums;
  }
  static Index work_size(Index in, Index out, int parts, int threads) {
    return parts == 0 ? 0 : threads * thread_size(in, out, parts);
  }

  // by_units(row): the same of one row without the engine
  template <class ByUnits>
  static void forward(const LinearForward<float>& a, const Team& team, const ByUnits& by_units) {
    a.engine->enter();
    multiply(*a.engine, a.parts, a.x, a.x_row, a.in, a.split, a.packed, a.y, a.y_row, a.out, team.share(a.N),
             a.work + team.index * thread_size(a.in, a.out, a.parts), by_units);
    a.engine->leave();
  }

  template <class ByUnits>
  static void backward(const LinearBackward<float>& a, const Team& team, const ByUnits& by_units) {
    float* work = a.work + team.index * thread_size(a.in, a.out, a.parts);
    a.engine->enter();
    if (a.dx) {
      multiply(*a.engine, a.parts, a.dy, a.dy_row, a.out, a.split, nullptr, a.dx, a.dx_row, a.in, team.share(a.N), work,
               by_units);
    }
    weight_gradient(a, team.share((T::count(a.in) + 3) / 4), work);
    a.engine->leave();
  }

  // c = init + the rows of `share` of a [., depth] times what is split
  template <class ByUnits>
  static void multiply(const Engine& engine, int parts, const float* a, Index a_row, Index depth, const Bf16* split,
                       const float* init, float* c, Index c_row, Index columns, const Range& share, float* work,
                       const ByUnits& by_units) {
    const Index blocks = T::blocks(depth);
    Bf16* rows = reinterpret_cast<Bf16*>(work);
    unsigned char unfit[group];
    for (Index r = share.begin; r < share.end; r += group) {
      const Index count = share.end - r < group ? share.end - r : group;
      for (Index i = 0; i < count; ++i) unfit[i] = 0;
      T::with_parts(parts, [&]<int n>() {
        T::template split_dense_rows<n>(count, depth, 0, blocks, rows, unfit,
                                        [&](Index i) { return a + (r + i) * a_row; });
      });
      T::multiply(engine, parts, rows, blocks, count, split, blocks, blocks, {0, T::count(columns)},
                  [&](Index first, Index m, Index tile, const float* product) {
                    const Index left = columns - tile * W, lanes = left < W ? left : W;
                    const auto start = init ? S::load(init + tile * W) : S::set(0.0f);
                    for (Index i = 0; i < m; ++i)
                      store_lanes<S>(c + (r + first + i) * c_row + tile * W,
                                     S::add(start, S::load(product + i * T::side)), lanes);
                  });
      T::for_unfit(unfit, count, [&](Index i) { by_units(r + i); });
    }
  }

  // d_weight [out,in] += dy^T x, of the groups of four tiles of columns
  static void weight_gradient(const LinearBackward<float>& a, const Range& groups, float* work) {
    for_row_blocks(a.N, [&](Index r, Index count) {
      const float *x = a.x + r * a.x_row, *dy = a.dy + r * a.dy_row;
      const Index blocks = T::blocks(count), tile_size = blocks * a.parts * T::size;
      Bf16 *features = reinterpret_cast<Bf16*>(work), *columns = features + T::count(a.out) * tile_size;
      bool fits = true;
      T::with_parts(a.parts, [&]<int n>() {
        for (Index o = 0; o < a.out; o += W) {
          fits &= T::template split_transposed<n>(count, features + o / W * tile_size, [&](Index k) {
            return load_lanes<S>(dy + k * a.dy_row + o, a.out - o < W ? a.out - o : W);
          });
        }
      });
      for (Index first = groups.begin * 4; first < groups.end * 4 && first < T::count(a.in); first += 4) {
        const Index last = first + 4 < T::count(a.in) ? first + 4 : T::count(a.in);
        const auto lanes = [&](Index tile) { return a.in - tile * W < W ? a.in - tile * W : W; };
        bool fit = fits;
        T::with_parts(a.parts, [&]<int n>() {
          for (Index tile = first; tile < last; ++tile) {
            fit &= T::template split_columns<n>(count, columns + (tile - first) * tile_size, [&](Index k) {
              return load_lanes<S>(x + k * a.x_row + tile * W, lanes(tile));
            });
          }
        });
        if (!fit) {
          add_by_units(a, x, dy, count, first * W, last * W < a.in ? last * W : a.in);
          continue;
        }
        T::multiply(*a.engine, a.parts, features, blocks, a.out, columns, blocks, blocks, {0, last - first},
                    [&](Index o, Index m, Index tile, const float* c) {
                      float* to = a.d_weight + o * a.in + (first + tile) * W;
                      for (Index i = 0; i < m; ++i, to += a.in) {
                        const Index valid = lanes(first + tile);
                        store_lanes<S>(to, S::add(load_lanes<S>(to, valid), S::load(c + i * T::side)), valid);
                      }
                    });
      }
    });
  }

  // the columns [begin, end) of it
  static void add_by_units(const LinearBackward<float>& a, const float* x, const float* dy, Index count, Index begin,
                           Index end) {
    const float* rows[row_block];
    for (Index k = 0; k < count; ++k) rows[k] = dy + k * a.dy_row;
    for (Index i = begin; i < end; i += W) {
      for_tiles(0, a.out, S::tile_rows[1], [&](Index o, Index m) {
        run_outer<S, 1>(m, {rows, o, nullptr, x + i, W, a.x_row, count, a.d_weight + o * a.in + i, a.in,
                            end - i < W ? end - i : W});
      });
    }
  }
};

}  // namespace
