// The forward steps of a staged cell: the gates of a step are made by products first, then the cell is applied to them
// in memory, then h is projected where the layer has a projection. One register tile serves all such cells, whatever
// they do and whichever inputs they read: that costs a store and a load of the gates, a few per cent.
#pragma once

namespace {

template <class S>
struct StagedForward : ForwardFrame<S> {
  using F = ForwardFrame<S>;
  using L = Layout<S>;
  using Real = typename S::Real;
  using Vec = typename S::Vec;
  using Context = typename F::Context;
  using L::W, L::G, L::PW, L::QW, L::R;

  static void run(const RecurrentForward<Real>& a, const CellTraits<S>& cell, typename F::Apply apply,
                  typename F::Apply output) {
    F::template run_steps<StagedForward>(a, cell, apply, output);
  }

  template <bool training>
  static void step(const Context& k, const Team& team, Index t, Index begin) {
    const RecurrentForward<Real>& a = k.a;
    const Schedule& s = a.schedule;
    const Index first = k.part.positions.begin, count = alive_in(s, t, k.part.positions);
    if (count == 0) return;
    const Index before = !training || t == 0 ? 0 : a.size.B + s.first[t - 1];
    const Index after = training ? a.size.B + s.first[t] : 0;
    F::set_rows(k, t, first, first + count, before);
    mask(k, team, t, count);
    if constexpr (makes_parts<S>) {
      if (a.engine) TileForward<S>::split_step(k, count);
    }
    const Index row = F::template gate_row<training>(k, t, begin) + first;
    if (a.size.normalized) {
      for (int side = 0; side < 2; ++side) {
        multiply(k, {k.products[side], side == 0, side == 1, false}, row, count);
        if (a.size.by_batch) {
          normalize_batch(k, side, t, row, count);
        } else {
          normalize_rows(k, side, row, count);
        }
      }
    } else {
      multiply(k, {k.gates, !k.hoisted, true, true}, row, count);
    }
    k.apply(k, t, row, count, before + first, after + first);
    if (a.size.normalized) {
      normalize_cells(k, t, row, first, count);
      k.apply_output(k, t, row, count, before + first, after + first);
    }
    if (a.size.P != a.size.H) project_outputs(k, t, count);
    F::template write_step<training>(k, t, count, after);
  }

  // what enters weight_hh: h, or what a mask leaves of it, which the tape keeps
  static void mask(const Context& k, const Team& team, Index t, Index count) {
    const RecurrentForward<Real>& a = k.a;
    const Index P = a.size.P, first = k.part.positions.begin;
    for (Index p = first; p < first + count; ++p) k.entering[p] = k.h[p];
    if (k.masked == nullptr) return;
    for (Index p = first; p < first + count; ++p) {
      Real* to = k.masked + (a.schedule.first[t] + p) * P;
      const Real* by = a.staged.h_mask + a.schedule.order[p] * P;
      L::for_columns(k.part, a.size.H, P, [&](Index j) { to[j] = k.h[p][j] * by[j]; });
      k.entering[p] = to;
    }
    if (k.part.meets) team.barrier();
  }

  // `row`: where the first of `count` rows goes
  static void multiply(const Context& k, const GateProduct<Real>& product, Index row, Index count) {
    if constexpr (makes_parts<S>) {
      if (k.a.engine) {
        TileForward<S>::multiply(k, product, row, count);
        return Tiles<S>::for_unfit(k.unfit, count, [&](Index r) { multiply_rows_of(k, product, row, {r, r + 1}); });
      }
    }
    multiply_rows_of(k, product, row, {0, count});
  }

  static void multiply_rows_of(const Context& k, const GateProduct<Real>& product, Index row, const Range& rows) {
    L::for_blocks(k.a.size.H, k.part.vectors, [&](const Block& block) {
      if (block.quads == 0) {
        multiply_block<G, PW, W>(k, product, row, rows, block);
      } else {
        F::with_quads(block.quads, [&]<int Q>() {
          multiply_block<Q * L::quad_vectors, QW, L::quad_vectors == 1 ? 0 : W>(k, product, row, rows, block);
        });
      }
    });
  }

  // in the form of ForwardFrame::project_block
  template <int V, Index row_size, Index vector>
  static void multiply_block(const Context& k, const GateProduct<Real>& product, Index row, const Range& rows,
                             const Block& block) {
    const RecurrentForward<Real>& a = k.a;
    const Index I = a.size.I, P = a.size.P, first = k.part.positions.begin;
    ProductTile<Real> tile;
    tile.operand[0].segment = tile.operand[1].segment = 0;
    tile.operand[0].depth = I;
    tile.operand[0].count = product.x ? 1 : 0;
    tile.operand[1].depth = P;
    tile.operand[1].count = product.h ? 1 : 0;
    const Real* panel = a.packed + L::panel_of(block, I, P);
    tile.init = product.gates ? panel : nullptr;
    tile.goes_on = product.gates && k.hoisted;
    tile.panel = panel + (product.x ? 1 : 1 + I) * V * W;
    tile.c_vector = vector ? vector : k.gate_rows * row_size;
    tile.lanes = W;
    Real* to = product.plane + G * block.unit * k.gate_rows + row * row_size;
    for_tiles(rows.begin, rows.end, S::tile_rows[V], [&](Index r, Index m) {
      for (Index i = 0; i < m; ++i) {
        tile.operand[0].row[i] = k.x[first + r + i];
        tile.operand[1].row[i] = k.entering[first + r + i];
        tile.c[i] = to + (r + i) * row_size;
        // the tape's next rows are on their way while the tile is multiplied
        for (int v = 0; a.tape && v < V; ++v) fetch<3>(tile.c[i] + v * tile.c_vector, W);
      }
      run_product<S, V, S::tile_rows[V], 0, 0>(m, tile);
    });
  }

  // what a product, whose mean is 0, is normalized with, over the units of each row
  static void normalize_rows(const Context& k, int side, Index row, Index count) {
    using N = Normalize<S>;
    const Real eps = static_cast<Real>(k.a.staged.options->eps);
    N::for_row_groups(row, count, [&](Index first, Index rows) {
      N::deviations(k.products[side], k.a.size.H, k.gate_rows, first, rows, eps, k.moments.at(side, 0, first));
    });
  }

  // a product becomes normalized over the rows of step t
  static void normalize_batch(const Context& k, int side, Index t, Index row, Index count) {
    using N = Normalize<S>;
    const StagedInputs<Real>& staged = k.a.staged;
    const Index H = k.a.size.H;
    const Real eps = static_cast<Real>(staged.options->eps);
    Real* scales = k.moments.at(side, moments_step(k, t), row);
    N::for_columns_of_gates(H, k.part, k.gate_rows, row,
                            [&](Index at, Index distance, Index by_unit, int index, Index unit) {
                              Vec mean, variance;
                              const bool given = N::read_statistics(staged, side, t, H, unit, index, mean, variance);
                              Real* first = k.products[side] + at;
                              const Vec scale = N::columns(first, distance, count, given, mean, variance, eps);
                              N::normalize_columns(first, distance, count, mean, scale);
                              S::store(scales + by_unit, scale);
                              if (staged.made.steps <= t) return;
                              N::write_gates(staged.made.mean[side] + t * G * H, mean, H, unit, index);
                              N::write_gates(staged.made.variance[side] + t * G * H, variance, H, unit, index);
                            });
  }

  // only a tape keeps them for all steps
  static Index moments_step(const Context& k, Index t) { return k.a.tape ? t : 0; }

  // what c is normalized with, as h sees it
  static void normalize_cells(const Context& k, Index t, Index row, Index first, Index count) {
    using N = Normalize<S>;
    const StagedInputs<Real>& staged = k.a.staged;
    const Index H = k.a.size.H, stride = L::vectors(H) * W, step = moments_step(k, t);
    const Real eps = static_cast<Real>(staged.options->eps);
    if (!k.a.size.by_batch) {
      N::for_row_groups(0, count, [&](Index r, Index rows) {
        N::units(k.seen + (first + r) * stride, stride, H, rows, eps, k.moments.at(2, step, row + r),
                 k.moments.at(3, step, row + r));
      });
      return;
    }
    N::for_columns_of_units(H, k.part, [&](Index unit, Index lanes) {
      Vec mean, variance;
      const bool given = N::read_statistics(staged, 2, t, H, unit, 0, mean, variance);
      const Vec scale = N::columns(k.seen + first * stride + unit, stride, count, given, mean, variance, eps);
      S::store(k.moments.at(2, step, row) + unit, mean);
      S::store(k.moments.at(3, step, row) + unit, scale);
      if (staged.made.steps <= t) return;
      store_lanes<S>(staged.made.mean[2] + t * H + unit, mean, lanes);
      store_lanes<S>(staged.made.variance[2] + t * H + unit, variance, lanes);
    });
  }

  // y = weight_hr outputs, or what zoneout makes of it
  static void project_outputs(const Context& k, Index t, Index count) {
    const RecurrentForward<Real>& a = k.a;
    const Index I = a.size.I, H = a.size.H, P = a.size.P, first = k.part.positions.begin;
    const Real* panel = a.packed + L::forward_panels(I, H, P) + L::params_size(*k.cell, H);
    multiply_rows<S>(
        first, first + count, H, panel, nullptr, P, [&](Index p) { return k.outputs + p * L::vectors(H) * W; },
        [&](Index p) { return k.y[p]; });
    const ConstView3<Real>& keep = a.staged.keep_h;
    for (Index p = first; keep.data && p < first + count; ++p) {
      const Real* kept = keep.data + t * keep.step + a.schedule.order[p] * keep.row;
      for (Index j = 0; j < P; ++j) k.y[p][j] = kept[j] * k.h[p][j] + (1.0f - kept[j]) * k.y[p][j];
    }
  }
};

// One cell's part of it.
template <class S, class Cell>
struct StagedCell : Layout<S> {
  using L = Layout<S>;
  using Real = typename S::Real;
  using Vec = typename S::Vec;
  using Context = typename ForwardFrame<S>::Context;
  using L::W, L::G, L::PW, L::R;

  static const Real* unit_params(const RecurrentForward<Real>& a) {
    return a.packed + L::forward_panels(a.size.I, a.size.H, a.size.P);
  }

  // where the cell's output for some positions goes
  static void set_outputs(const Context& k, Index p, Index rows, Real* (&to)[R]) {
    const Index H = k.a.size.H, stride = L::vectors(H) * W;
    for (Index i = 0; i < rows; ++i) to[i] = k.a.size.P != H ? k.outputs + (p + i) * stride : k.y[p + i];
  }

  // what the cell reads beside its gates; `c`: of the piece, before the step
  template <bool quads>
  LSTMX_INLINE CellInputs<S, Cell> inputs(const Context& k, Index t, const Piece<S, quads>& piece, Index p,
                                          const Real* c) {
    const RecurrentForward<Real>& a = k.a;
    return read_inputs<Cell>(
        piece, c, unit_params(a), L::vectors(a.size.H) * W, a.staged, a.size.P != a.size.H, k.zeros,
        [&](const ConstView3<Real>& v, Index i) { return v.data + t * v.step + a.schedule.order[p + i] * v.row; },
        [&](Index i) { return k.h[p + i]; });
  }

  // bias + the sum of both normalized products times their gains
  template <bool quads>
  static void normalized_gates(const Context& k, Index row, const Piece<S, quads>& piece, Index at, Vec (&gate)[G]) {
    const Index H = k.a.size.H, plane = PW * L::pieces(H);
    const Real* params = unit_params(k.a) + L::unit_params_size(*k.cell, H) + L::params_of(H, piece.unit);
    piece.gates_of_all(params, gate);
    LSTMX_UNROLL
    for (int side = 1; side >= 0; --side) {
      Vec v[G], gain[G], scale[G];
      piece.load_gates(k.products[side] + at, v);
      piece.gates_of_all(params + (1 + side) * plane, gain);
      if (!k.a.size.by_batch) {
        piece.of_each_row(k.moments.at(side, 0, row), scale);
        LSTMX_UNROLL
        for (int g = 0; g < G; ++g) v[g] = S::mul(v[g], scale[g]);
      }
      LSTMX_UNROLL
      for (int g = 0; g < G; ++g) gate[g] = S::fma(v[g], gain[g], gate[g]);
    }
  }

  // from and to the gates, which a tape keeps; `before` and `after`: rows of c
  static void apply(const Context& shared, Index t, Index row, Index count, Index before, Index after) {
    const Context k = shared;  // what no store can change
    const RecurrentForward<Real>& a = k.a;
    const Index stride = L::vectors(a.size.H) * W, first = k.part.positions.begin;
    L::for_pieces_of_step(a.size.H, k.part, count, [&]<bool quads>(const Piece<S, quads>& piece, Index r) {
      constexpr Index units = quads ? 4 : W;
      const Index at = G * piece.unit * k.gate_rows + (row + r) * G * units;
      Real* gates = k.gates + at;
      Real* cells = k.cells + piece.unit * k.cell_rows;
      const Index p = first + r;
      Real* to[R] = {};
      if (a.size.normalized) {
        for (Index i = 0; i < piece.rows; ++i) to[i] = k.seen + (p + i) * stride;
      } else {
        set_outputs(k, p, piece.rows, to);
      }
      Vec gate[G], c, h;
      if (a.size.normalized) {
        normalized_gates(k, row + r, piece, at, gate);
      } else {
        piece.load_gates(gates, gate);
      }
      Cell::forward(a.staged.options, gate, inputs(k, t, piece, p, cells + (before + r) * units), c, h);
      piece.store(cells + (after + r) * units, c);
      piece.to_rows(to, h);
      if (a.tape || a.size.normalized) {
        LSTMX_UNROLL
        for (int g = 0; g < G; ++g) piece.store(gates + g * piece.size(), gate[g]);
      }
    });
  }

  // h, once what it sees of c is normalized
  static void apply_output(const Context& shared, Index t, Index row, Index count, Index before, Index) {
    const Context k = shared;
    const Index step = StagedForward<S>::moments_step(k, t);
    const RecurrentForward<Real>& a = k.a;
    const Index stride = L::vectors(a.size.H) * W, first = k.part.positions.begin;
    L::for_pieces_of_step(a.size.H, k.part, count, [&]<bool quads>(const Piece<S, quads>& piece, Index r) {
      constexpr Index units = quads ? 4 : W;
      const Real* gates = k.gates + G * piece.unit * k.gate_rows + (row + r) * G * units;
      const Real* c_prev = k.cells + piece.unit * k.cell_rows + (before + r) * units;
      const Index p = first + r;
      const Real* seen[R];
      for (Index i = 0; i < R; ++i) seen[i] = i < piece.rows ? k.seen + (p + i) * stride : k.zeros;
      Real* to[R] = {};
      set_outputs(k, p, piece.rows, to);
      const auto in = inputs(k, t, piece, p, c_prev);
      const Vec out = piece.load(gates + 3 * piece.size());
      const Vec c = k.moments.normalized(piece, piece.of_rows(seen), step, row + r);
      const Vec value = Cell::value_of(*a.staged.options, Cell::seen_of(c, in));
      if (k.values) piece.store(k.values + piece.unit * k.gate_rows + (row + r) * units, value);
      piece.to_rows(to, Cell::output(out, value, in));
    });
  }
};

}  // namespace
