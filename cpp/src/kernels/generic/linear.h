// The affine map y = x W^T + b over rows, forward and backward, split over rows; the weight gradient over its own
// tiles.
//   packed forward   the bias (padded to whole vectors), then W^T for products
//   packed backward  W for products
#pragma once

namespace {

template <class S>
struct Linear {
  using Real = typename S::Real;
  using Vec = typename S::Vec;
  static constexpr Index W = S::width;

  static Index padded(Index n) { return (n + W - 1) / W * W; }

  static Index pack_forward_size(Index in, Index out) { return padded(out) * (1 + in); }
  static Index pack_backward_size(Index in, Index out) { return padded(in) * out; }

  static void pack_forward(const Real* weight, const Real* bias, Index in, Index out, Real* packed) {
    for (Index k = 0; k < out; k += W, packed += W)
      S::store(packed, bias ? load_lanes<S>(bias + k, out - k < W ? out - k : W) : S::set(0.0f));
    for_column_groups<S>(out, [&](Index first, Index vectors, Index lanes) {
      const Index width = vectors * W;
      pack_transposed<S>(weight + first * in, in, in, width - W + lanes, width, packed, width);
      packed += in * width;
    });
  }

  static void pack_backward(const Real* weight, Index in, Index out, Real* packed) {
    pack_columns<S>(weight, in, out, in, packed, [](Index k) { return k; });
  }

  // c[rows of `share`, columns] = init + a[:, depth] * packed
  static void product(const Real* a, Index a_row, Index depth, const Real* packed, const Real* init, Real* c,
                      Index c_row, Index columns, Range share) {
    if (columns <= W / 4) {
      return with_constant(columns,
                           [&]<int n>() { narrow_product<n>(a, a_row, depth, packed, init, c, c_row, share); });
    }
    multiply_rows<S>(
        share.begin, share.end, depth, packed, init, columns, [&](Index r) { return a + r * a_row; },
        [&](Index r) { return c + r * c_row; });
  }

  // The same for a few columns, which would waste most lanes: rows are in the lanes instead. The same chains, so the
  // same bits.
  template <int columns>
  static void narrow_product(const Real* a, Index a_row, Index depth, const Real* packed, const Real* init, Real* c,
                             Index c_row, Range share) {
    for (Index r = share.begin; r < share.end; r += W) {
      const Index rows = share.end - r < W ? share.end - r : W;
      Vec sum[columns];
      LSTMX_UNROLL
      for (int j = 0; j < columns; ++j) sum[j] = S::set(init ? init[j] : 0.0f);
      for (Index k = 0; k < depth; k += W) {
        Vec x[W];
        const Index n = depth - k < W ? depth - k : W;
        load_transposed<S>(a + r * a_row + k, a_row, rows, n, x);
        for (Index i = 0; i < n; ++i) {
          LSTMX_UNROLL
          for (int j = 0; j < columns; ++j) sum[j] = S::fma(x[i], S::set(packed[(k + i) * W + j]), sum[j]);
        }
      }
      for (int j = 0; j < columns; ++j) {
        Real* to = c + r * c_row + j;
        if (c_row == 1) {
          store_lanes<S>(to, sum[j], rows);
        } else {
          Real lanes[W];
          S::store(lanes, sum[j]);
          for (Index l = 0; l < rows; ++l) to[l * c_row] = lanes[l];
        }
      }
    }
  }

  // of either direction
  static Index work_size(Index in, Index out, int parts, int threads) {
    if constexpr (makes_parts<S>) return TileLinear<S>::work_size(in, out, parts, threads);
    return 0;
  }

  static void forward(const LinearForward<Real>& a) {
    parallel(team_size(a.threads, double(a.N) * a.in * a.out, a.N), [&](const Team& team) {
      if constexpr (makes_parts<S>) {
        if (a.engine) {
          return TileLinear<S>::forward(a, team, [&](Index r) {
            product(a.x, a.x_row, a.in, a.packed + padded(a.out), a.packed, a.y, a.y_row, a.out, {r, r + 1});
          });
        }
      }
      product(a.x, a.x_row, a.in, a.packed + padded(a.out), a.packed, a.y, a.y_row, a.out, team.share(a.N));
    });
  }

  static void backward(const LinearBackward<Real>& a) {
    parallel(team_size(a.threads, 2.0 * a.N * a.in * a.out, a.N), [&](const Team& team) {
      if constexpr (makes_parts<S>) {
        if (a.engine) {
          TileLinear<S>::backward(a, team, [&](Index r) {
            product(a.dy, a.dy_row, a.out, a.packed, nullptr, a.dx, a.dx_row, a.in, {r, r + 1});
          });
          if (a.d_bias && team.index == 0) {
            for_row_blocks(a.N, [&](Index r, Index count) { bias_gradient(a, a.dy + r * a.dy_row, count); });
          }
          return;
        }
      }
      if (a.dx) product(a.dy, a.dy_row, a.out, a.packed, nullptr, a.dx, a.dx_row, a.in, team.share(a.N));
      const Range outs = team.share(a.out);
      for_row_blocks(a.N, [&](Index r, Index count) {
        const Real *x = a.x + r * a.x_row, *dy = a.dy + r * a.dy_row;
        const Real* rows[row_block];
        if (is_wide(a)) {
          for (Index k = 0; k < count; ++k) rows[k] = x + k * a.x_row;
          transposed_weight_gradient(a, rows, dy, count, team);
        } else {
          for (Index k = 0; k < count; ++k) rows[k] = dy + k * a.dy_row;
          weight_gradient(a, rows, x, count, outs);
        }
        if (a.d_bias && team.index == 0) bias_gradient(a, dy, count);
      });
    });
  }

  static void weight_gradient(const LinearBackward<Real>& a, const Real* const* dy, const Real* x, Index count,
                              Range outs) {
    for_column_groups<S>(a.in, [&](Index first, Index vectors, Index lanes) {
      with_constant(vectors, [&]<int V>() {
        for_tiles(outs.begin, outs.end, S::tile_rows[V], [&](Index o, Index m) {
          run_outer<S, V>(m,
                          {dy, o, nullptr, x + first, W, a.x_row, count, a.d_weight + o * a.in + first, a.in, lanes});
        });
      });
    });
  }

  // whether [in,out] wastes fewer lanes than [out,in]
  static bool is_wide(const LinearBackward<Real>& a) { return a.in * padded(a.out) < a.out * padded(a.in); }

  // The same sums in tiles of [in,out], added to the gradient [out,in] at the end.
  static void transposed_weight_gradient(const LinearBackward<Real>& a, const Real* const* x, const Real* dy,
                                         Index count, const Team& team) {
    const Range ins = team.share(a.in);
    for_column_groups<S>(a.out, [&](Index first, Index vectors, Index lanes) {
      with_constant(vectors, [&]<int V>() {
        for_tiles(ins.begin, ins.end, S::tile_rows[V], [&](Index i, Index m) {
          Real sums[S::tile_rows[V] * V * W] = {};
          run_outer<S, V>(m, {x, i, nullptr, dy + first, W, a.dy_row, count, sums, V * W, lanes});
          for (Index o = 0; o < (V - 1) * W + lanes; ++o) {
            for (Index k = 0; k < m; ++k) a.d_weight[(first + o) * a.in + i + k] += sums[k * V * W + o];
          }
        });
      });
    });
  }

  static void bias_gradient(const LinearBackward<Real>& a, const Real* dy, Index count) {
    for_column_groups<S>(a.out, [&](Index first, Index vectors, Index lanes) {
      with_constant(vectors,
                    [&]<int V>() { add_column_sums<S, V>(dy + first, W, a.dy_row, count, a.d_bias + first, lanes); });
    });
  }
};

}  // namespace
