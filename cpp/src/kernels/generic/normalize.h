// Normalization inside the recurrence, of the products with x and with h and of c: over a row's units, gate by gate
// (layer normalization, Ba, Kiros and Hinton 2016), or over the rows of a step (batch normalization, Cooijmans et al.
// 2017). Each comes out with mean 0 and variance 1; gains and biases are applied by whoever reads them.
//
// Over units, the mean of a product is that of the weights' rows times x: weights are packed without it (layout.h), so
// that products have mean 0 as they are and only their squares are summed; what goes back through such weights needs no
// mean either, but that of the weights' gradients over units is taken away at the end. R rows, of four gates each, make
// their sums together: these fill a vector.
#pragma once

namespace {

template <class S>
struct Normalize : Layout<S> {
  using L = Layout<S>;
  using Real = typename S::Real;
  using Vec = typename S::Vec;
  using L::W, L::G, L::PW, L::QW, L::R;

  // ---- over units

  // Sums over the units of R rows, N for each; of gates, where N is four, those of quads apart, as they are in a plane.
  template <int N>
  struct RowSums {
    Vec wide[R][N], quads[4];

    RowSums() {
      LSTMX_UNROLL
      for (int n = 0; n < N; ++n) {
        LSTMX_UNROLL
        for (int r = 0; r < R; ++r) wide[r][n] = S::set(0);
      }
      for (Vec& sum : quads) sum = S::set(0);
    }
    template <bool of_quads>
    Vec& of(int r, int n) {
      return of_quads ? quads[n] : wide[r][n];
    }
    // lane 4r + n: the n-th of row r; the last serves for those beyond N
    Vec total() const {
      Vec lanes[4] = {quads[0], quads[1], quads[2], quads[3]};
      S::gates_of_quads(lanes);
      LSTMX_UNROLL
      for (int n = 0; n < 4; ++n) {
        Vec rows[R];
        LSTMX_UNROLL
        for (int r = 0; r < R; ++r) rows[r] = wide[r][n < N ? n : N - 1];
        lanes[n] = N == G ? S::add(lanes[n], S::fours_of_rows(rows)) : S::fours_of_rows(rows);
      }
      return S::sums_of_fours(lanes);
    }
  };

  // Four numbers of each of up to R rows, as four vectors that go with a row's wide block or with all rows' quad.
  template <bool quads>
  struct RowNumbers {
    const Real* by_row;
    Vec of_quads[4];

    RowNumbers(const Real* p, Index rows) : by_row(p) {
      if constexpr (quads) {
        S::spread_fours(load_lanes<S>(p, rows * 4), of_quads);
        S::quads_of_gates(of_quads);
      }
    }
    Vec at(Index i, int j) const { return quads ? of_quads[j] : S::set(by_row[i * 4 + j]); }
  };

  // Gates of a plane, [G] of the wide block of a row, or of a quad in up to R rows: four vectors either way. Of these
  // param(j) is the vector by unit, of an array as gates are, that goes with the j-th.
  template <bool quads>
  LSTMX_INLINE void load_gates(const Real* p, Index rows, Vec (&v)[4]) {
    LSTMX_UNROLL
    for (int j = 0; j < 4; ++j) v[j] = quads && j / L::quad_vectors >= rows ? S::set(0) : S::load(p + j * W);
  }
  template <bool quads>
  LSTMX_INLINE void store_gates(Real* p, Index rows, const Vec (&v)[4]) {
    LSTMX_UNROLL
    for (int j = 0; j < 4; ++j)
      if (!quads || j / L::quad_vectors < rows) S::store(p + j * W, v[j]);
  }
  template <bool quads>
  static constexpr int param(int j) {
    return quads ? j % L::quad_vectors : j;
  }
  template <bool quads>
  static constexpr int params = quads ? L::quad_vectors : G;
  template <bool quads>
  LSTMX_INLINE void load_params(const Real* p, Vec (&v)[4]) {
    LSTMX_UNROLL
    for (int j = 0; j < params<quads>; ++j) v[j] = S::load(p + j * W);
  }
  template <bool quads>
  LSTMX_INLINE void store_params(Real* p, const Vec (&v)[4]) {
    LSTMX_UNROLL
    for (int j = 0; j < params<quads>; ++j) S::store(p + j * W, v[j]);
  }

  // body(first, rows) for `count` rows from `begin` on, in groups of up to R
  template <class Body>
  LSTMX_INLINE void for_row_groups(Index begin, Index count, const Body& body) {
    for (Index r = 0; r < count; r += R) body(begin + r, count - r < R ? count - r : Index(R));
  }

  // body(offset in a plane of gates of `all` rows, in an array as gates are) for the wide blocks of the rows from `row`
  // on, or for their quads
  template <bool quads, class Body>
  LSTMX_INLINE void for_pieces_of_rows(Index H, Index all, Index row, const Body& body) {
    const Index full = H / W * W, end = quads ? H : full;
    for (Index unit = quads ? full : 0; unit < end; unit += quads ? 4 : W)
      body(G * unit * all + row * (quads ? QW : PW), G * unit);
  }
  // how far the i-th row's wide block is from the first's, the last row standing for those beyond
  LSTMX_INLINE Index offset_of(int i, Index rows) { return (i < rows ? i : rows - 1) * PW; }

  // Of up to R rows of products with mean 0: 1 / the deviations, by row and gate.
  static void deviations(const Real* plane, Index H, Index all, Index row, Index rows, Real eps, Real* scales) {
    RowSums<G> squares;
    const auto add = [&]<bool quads>() {
      for_pieces_of_rows<quads>(H, all, row, [&](Index at, Index) {
        LSTMX_UNROLL
        for (int i = 0; i < (quads ? 1 : R); ++i) {
          Vec v[4];
          load_gates<quads>(plane + at + offset_of(i, rows), rows, v);
          LSTMX_UNROLL
          for (int j = 0; j < 4; ++j) {
            Vec& sum = squares.template of<quads>(i, j);
            sum = S::fma(v[j], v[j], sum);
          }
        }
      });
    };
    add.template operator()<false>();
    add.template operator()<true>();
    store_lanes<S>(scales, inverse_deviation(mean_of(squares.total(), H), eps), rows * 4);
  }

  // A product of the gates; gain: as gates are.
  struct Side {
    Real* products;
    const Real *gain, *scales;  // scales: as deviations() gave them
    Real* along;                // by row and gate
  };

  // Of the same rows, d being the gradients by their gates: how much of them goes back along themselves. Adds what the
  // rows give to the gradient of the gain.
  static void gates_along(const Real* d, const Side& side, Index H, Index all, Index row, Index rows, Real* d_gain) {
    Real scale[W];  // 0 of rows beyond, that they give nothing
    const Vec of_rows = load_lanes<S>(side.scales, rows * 4);
    S::store(scale, of_rows);
    RowSums<G> sums;
    const auto add = [&]<bool quads>() {
      const RowNumbers<quads> by(scale, R);
      for_pieces_of_rows<quads>(H, all, row, [&](Index at, Index by_unit) {
        Vec gain[4], more[4];
        load_params<quads>(side.gain + by_unit, gain);
        load_params<quads>(d_gain + by_unit, more);
        LSTMX_UNROLL
        for (int i = 0; i < (quads ? 1 : R); ++i) {
          Vec v[4], dv[4];
          load_gates<quads>(side.products + at + offset_of(i, rows), rows, v);
          load_gates<quads>(d + at + offset_of(i, rows), rows, dv);
          LSTMX_UNROLL
          for (int j = 0; j < 4; ++j) {
            const Vec both = S::mul(v[j], dv[j]);
            Vec &sum = sums.template of<quads>(i, j), &total = more[param<quads>(j)];
            sum = S::fma(both, gain[param<quads>(j)], sum);
            total = S::fma(both, by.at(i, j), total);
          }
        }
        store_params<quads>(d_gain + by_unit, more);
      });
    };
    add.template operator()<false>();
    add.template operator()<true>();
    // that along the normalized scale * products is scale times the mean
    store_lanes<S>(side.along, S::mul(of_rows, S::mul(of_rows, mean_of(sums.total(), H))), rows * 4);
  }

  // Of both sides, they become the gradients by themselves, but for their means over units. Adds to that of the bias,
  // likewise.
  static void gates_back(const Real* d, const Side (&sides)[2], Index H, Index all, Index row, Index rows,
                         Real* d_bias) {
    const auto go_back = [&]<bool quads>() {
      const RowNumbers<quads> by[2] = {{sides[0].scales, rows}, {sides[1].scales, rows}};
      const RowNumbers<quads> less[2] = {{sides[0].along, rows}, {sides[1].along, rows}};
      for_pieces_of_rows<quads>(H, all, row, [&](Index at, Index by_unit) {
        Vec gain[2][4], sum[4];
        LSTMX_UNROLL
        for (int s = 0; s < 2; ++s) load_params<quads>(sides[s].gain + by_unit, gain[s]);
        load_params<quads>(d_bias + by_unit, sum);
        for (Index i = 0; i < (quads ? 1 : rows); ++i) {
          Vec dv[4];
          load_gates<quads>(d + at + i * PW, rows, dv);
          LSTMX_UNROLL
          for (int j = 0; j < 4; ++j) sum[param<quads>(j)] = S::add(sum[param<quads>(j)], dv[j]);
          LSTMX_UNROLL
          for (int s = 0; s < 2; ++s) {
            Vec v[4];
            Real* to = sides[s].products + at + i * PW;
            load_gates<quads>(to, rows, v);
            LSTMX_UNROLL
            for (int j = 0; j < 4; ++j) {
              const Vec rest = S::fnma(v[j], less[s].at(i, j), S::mul(dv[j], gain[s][param<quads>(j)]));
              v[j] = S::mul(by[s].at(i, j), rest);
            }
            store_gates<quads>(to, rows, v);
          }
        }
        store_params<quads>(d_bias + by_unit, sum);
      });
    };
    go_back.template operator()<false>();
    if (H % W > 0) go_back.template operator()<true>();
  }

  // Of up to R dense rows: their means and 1 / deviations, each four times.
  static void units(const Real* first, Index stride, Index H, Index rows, Real eps, Real* means, Real* scales) {
    RowSums<1> sums, squares;
    for_units_of_rows(H, stride, rows, [&](int i, Index at, Index lanes) {
      sums.wide[i][0] = S::add(sums.wide[i][0], load_lanes<S>(first + at, lanes));
    });
    const Vec mean = mean_of(sums.total(), H);
    Real of_row[W], valid[W];
    S::store(of_row, mean);
    S::store(valid, S::set(1));
    for_units_of_rows(H, stride, rows, [&](int i, Index at, Index lanes) {
      const Vec v = load_lanes<S>(first + at, lanes), less = S::set(of_row[4 * i]);
      const Vec rest = lanes == W ? S::sub(v, less) : S::fnma(S::load_n(valid, lanes), less, v);  // lanes beyond stay 0
      squares.wide[i][0] = S::fma(rest, rest, squares.wide[i][0]);
    });
    store_lanes<S>(means, mean, rows * 4);
    store_lanes<S>(scales, inverse_deviation(mean_of(squares.total(), H), eps), rows * 4);
  }

  // d, the gradients by gain * n + bias of the normalized rows n, become those by the rows that they were made of.
  // d_params, of these rows: of the gain and of the bias, [2][stride].
  static void units_back(Real* d, const Real* n, Index stride, Index H, Index rows, const Real* gain,
                         const Real* scales, Real* d_params) {
    RowSums<2> sums;
    for (Index u = 0; u < H; u += W) {
      const Index lanes = H - u < W ? H - u : W;
      const Vec by = S::load(gain + u);
      Vec d_gain = S::load(d_params + u), d_bias = S::load(d_params + stride + u);
      LSTMX_UNROLL
      for (int i = 0; i < R; ++i) {
        if (i >= rows) break;
        const Vec v = load_lanes<S>(d + i * stride + u, lanes), of_n = load_lanes<S>(n + i * stride + u, lanes);
        const Vec both = S::mul(v, of_n);
        sums.wide[i][0] = S::fma(v, by, sums.wide[i][0]);
        sums.wide[i][1] = S::fma(both, by, sums.wide[i][1]);
        d_gain = S::add(d_gain, both);
        d_bias = S::add(d_bias, v);
      }
      S::store(d_params + u, d_gain);
      S::store(d_params + stride + u, d_bias);
    }
    Real mean[W];
    S::store(mean, mean_of(sums.total(), H));
    for (Index i = 0; i < rows; ++i) {
      const Vec all = S::set(mean[4 * i]), along = S::set(mean[4 * i + 1]), scale = S::set(scales[4 * i]);
      for (Index u = 0; u < H; u += W) {
        Real* to = d + i * stride + u;
        const Vec rest = S::sub(S::mul(S::load(to), S::load(gain + u)), all);
        S::store(to, S::mul(S::fnma(S::load(n + i * stride + u), along, rest), scale));
      }
    }
  }

  // ---- over rows

  // The mean and the variance of W columns of `count` rows, `distance` apart; returns 1 / their deviations. Those given
  // stay.
  LSTMX_INLINE Vec columns(const Real* first, Index distance, Index count, bool given, Vec& mean, Vec& variance,
                           Real eps) {
    const auto mean_of_rows = [&](const auto& value) {
      Vec sum = S::set(0);
      for (Index r = 0; r < count; ++r) sum = S::add(sum, value(S::load(first + r * distance)));
      return mean_of(sum, count);
    };
    if (!given) {
      mean = mean_of_rows([](Vec x) { return x; });
      variance = mean_of_rows([&](Vec x) { return S::mul(S::sub(x, mean), S::sub(x, mean)); });
    }
    return inverse_deviation(variance, eps);
  }

  LSTMX_INLINE void normalize_columns(Real* x, Index distance, Index count, Vec mean, Vec scale) {
    for (Index r = 0; r < count; ++r, x += distance) S::store(x, S::mul(S::sub(S::load(x), mean), scale));
  }

  // `to` (d or n itself): the gradient by the columns that became n, d being that by gain * n + bias; adds
  // those of the gain and of the bias.
  LSTMX_INLINE void columns_back(const Real* d, Vec gain, const Real* n, Real* to, Index distance, Index count,
                                 bool given, Vec scale, Vec& d_gain, Vec& d_bias) {
    Vec sum = S::set(0), both = sum;
    for (Index r = 0; r < count; ++r) {
      const Vec v = S::load(d + r * distance);
      sum = S::add(sum, v);
      both = S::fma(v, S::load(n + r * distance), both);
    }
    const Vec mean = given ? S::set(0) : mean_of(sum, count), along = given ? S::set(0) : mean_of(both, count);
    const Vec by = S::mul(gain, scale);
    for (Index r = 0; r < count; ++r) {
      const Vec rest = S::sub(S::load(d + r * distance), mean);
      S::store(to + r * distance, S::mul(S::fnma(S::load(n + r * distance), along, rest), by));
    }
    d_gain = S::add(d_gain, both);
    d_bias = S::add(d_bias, sum);
  }

  // body(offset in a plane, distance of rows, offset by gate and unit, index, unit) for the vectors of the gates of the
  // part's units
  template <class Body>
  LSTMX_INLINE void for_columns_of_gates(Index H, const Part& part, Index rows, Index row, const Body& body) {
    L::for_pieces(H, part.vectors, [&](Index unit, Index, Index) {
      const bool wide = is_wide(H, unit);
      const Index distance = wide ? PW : QW;
      for (int v = 0; v < (wide ? G : L::quad_vectors); ++v)
        body(G * unit * rows + row * distance + v * W, distance, G * unit + v * W, v, unit);
    });
  }

  // a vector of statistics, from and to an array [G * H]
  static Vec read_gates(const Real* from, Index H, Index unit, int index) {
    Real lanes[W];
    for (Index l = 0; l < W; ++l) {
      const Index at = gate_row(H, unit, index, l);
      lanes[l] = at < 0 ? Real(0) : from[at];
    }
    return S::load(lanes);
  }
  static void write_gates(Real* to, Vec v, Index H, Index unit, int index) {
    Real lanes[W];
    S::store(lanes, v);
    for (Index l = 0; l < W; ++l) {
      const Index at = gate_row(H, unit, index, l);
      if (at >= 0) to[at] = lanes[l];
    }
  }

  // body(first unit, valid units) for the vectors of the part's units, in dense rows
  template <class Body>
  LSTMX_INLINE void for_columns_of_units(Index H, const Part& part, const Body& body) {
    for (Index v = part.vectors.begin; v < part.vectors.end; ++v) body(v * W, H - v * W < W ? H - v * W : W);
  }

  // running statistics at a step: of gates, of c; false: there are none
  static bool read_statistics(const StagedInputs<Real>& staged, int side, Index t, Index H, Index unit, int index,
                              Vec& mean, Vec& variance) {
    mean = variance = S::set(0);
    if (staged.running.steps == 0) return false;
    const Index s = t < staged.running.steps ? t : staged.running.steps - 1;
    if (side < 2) {
      mean = read_gates(staged.running.mean[side] + s * G * H, H, unit, index);
      variance = read_gates(staged.running.variance[side] + s * G * H, H, unit, index);
    } else {
      const Index lanes = H - unit < W ? H - unit : W;
      mean = load_lanes<S>(staged.running.mean[2] + s * H + unit, lanes);
      variance = load_lanes<S>(staged.running.variance[2] + s * H + unit, lanes);
    }
    return true;
  }

 private:
  static bool is_wide(Index H, Index unit) { return unit < H / W * W; }

  // where a lane of a vector of gates is in an array [G * H]; -1: it is no unit's
  static Index gate_row(Index H, Index unit, int index, Index lane) {
    const Index at = index * W + lane, width = is_wide(H, unit) ? W : 4, of_unit = unit + at % width;
    return of_unit < H ? at / width * H + of_unit : -1;
  }

  LSTMX_INLINE Vec mean_of(Vec sum, Index n) { return S::mul(sum, S::set(Real(1) / static_cast<Real>(n))); }
  LSTMX_INLINE Vec inverse_deviation(Vec variance, Real eps) {
    return S::div(S::set(1), S::sqrt(S::add(variance, S::set(eps))));
  }

  // body(i, offset, valid units) for the vectors of R dense rows, the last standing for those beyond `rows`
  template <class Body>
  LSTMX_INLINE void for_units_of_rows(Index H, Index stride, Index rows, const Body& body) {
    for (Index u = 0; u < H; u += W) {
      const Index lanes = H - u < W ? H - u : W;
      LSTMX_UNROLL
      for (int i = 0; i < R; ++i) body(i, (i < rows ? i : rows - 1) * stride + u, lanes);
    }
  }
};

}  // namespace
