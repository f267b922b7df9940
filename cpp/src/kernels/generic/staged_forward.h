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

  static void run(const RecurrentForward<Real>& a, const CellTraits<S>& cell, typename F::Apply apply) {
    F::template run_steps<StagedForward>(a, cell, apply);
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
    const Index row = F::template gate_row<training>(k, t, begin) + first;
    L::for_blocks(a.size.H, k.part.vectors, [&](const Block& block) {
      if (block.quads == 0) {
        multiply_block<G, PW, W>(k, row, count, block);
      } else {
        F::with_quads(block.quads, [&]<int Q>() {
          multiply_block<Q * L::quad_vectors, QW, L::quad_vectors == 1 ? 0 : W>(k, row, count, block);
        });
      }
    });
    k.apply(k, t, row, count, before + first, after + first);
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

  // gates = [bias + W x, or what they are so far] + U h, in the form of ForwardFrame::project_block
  template <int V, Index row_size, Index vector>
  static void multiply_block(const Context& k, Index row, Index count, const Block& block) {
    const RecurrentForward<Real>& a = k.a;
    const Index I = a.size.I, P = a.size.P, first = k.part.positions.begin;
    ProductTile<Real> tile;
    tile.operand[0].segment = tile.operand[1].segment = 0;
    tile.operand[0].depth = I;
    tile.operand[0].count = k.hoisted ? 0 : 1;
    tile.operand[1].depth = P;
    tile.operand[1].count = 1;
    tile.init = a.packed + L::panel_of(block, I, P);
    tile.goes_on = k.hoisted;
    tile.panel = tile.init + (k.hoisted ? 1 + I : 1) * V * W;
    tile.c_vector = vector ? vector : k.gate_rows * row_size;
    tile.lanes = W;
    Real* gates = k.gates + G * block.unit * k.gate_rows + row * row_size;
    for_tiles(0, count, S::tile_rows[V], [&](Index r, Index m) {
      for (Index i = 0; i < m; ++i) {
        tile.operand[0].row[i] = k.x[first + r + i];
        tile.operand[1].row[i] = k.entering[first + r + i];
        tile.c[i] = gates + (r + i) * row_size;
      }
      run_product<S, V, S::tile_rows[V], 0, 0>(m, tile);
    });
  }

  // y = weight_hr outputs, or what zoneout makes of it
  static void project_outputs(const Context& k, Index t, Index count) {
    const RecurrentForward<Real>& a = k.a;
    const Index I = a.size.I, H = a.size.H, P = a.size.P, first = k.part.positions.begin;
    const Real* panel = a.packed + L::forward_panels(I, H, P) + L::unit_params_size(*k.cell, H);
    for_column_groups<S>(P, [&](Index column, Index vectors, Index lanes) {
      with_constant(vectors, [&]<int V>() {
        ProductTile<Real> tile;
        tile.operand[0].segment = 0;
        tile.operand[0].depth = H;
        tile.operand[0].count = 1;
        tile.operand[1].count = 0;
        tile.init = nullptr;
        tile.goes_on = false;
        tile.panel = panel + column * H;
        tile.c_vector = W;
        tile.lanes = lanes;
        for_tiles(first, first + count, S::tile_rows[V], [&](Index p, Index m) {
          for (Index i = 0; i < m; ++i) {
            tile.operand[0].row[i] = k.outputs + (p + i) * L::vectors(H) * W;
            tile.c[i] = k.y[p + i] + column;
          }
          run_product<S, V, S::tile_rows[V], 0, 0>(m, tile);
        });
      });
    });
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
  using L::W, L::G, L::R;

  // from and to the gates, which a tape keeps; `before` and `after`: rows of c
  static void apply(const Context& k, Index t, Index row, Index count, Index before, Index after) {
    const RecurrentForward<Real>& a = k.a;
    const Index H = a.size.H, first = k.part.positions.begin;
    const bool projects = a.size.P != H;
    const Real* unit_params = a.packed + L::forward_panels(a.size.I, H, a.size.P);
    L::for_pieces_of_step(H, k.part, count, [&]<bool quads>(const Piece<S, quads>& piece, Index r) {
      constexpr Index units = quads ? 4 : W;
      Real* gates = k.gates + G * piece.unit * k.gate_rows + (row + r) * G * units;
      Real* cells = k.cells + piece.unit * k.cell_rows;
      const Index p = first + r;
      Real* to[R] = {};
      for (Index i = 0; i < piece.rows; ++i) to[i] = projects ? k.outputs + (p + i) * L::vectors(H) * W : k.y[p + i];
      Vec gate[G], c, h;
      LSTMX_UNROLL
      for (int g = 0; g < G; ++g)
        gate[g] = quads && g / L::quad_vectors >= piece.rows ? S::set(0.0f) : S::load(gates + g * W);
      if constexpr (quads) S::gates_of_quads(gate);
      const auto inputs = read_inputs<Cell>(
          piece, cells + (before + r) * units, unit_params, L::vectors(H) * W, a.staged, projects, k.zeros,
          [&](const ConstView3<Real>& v, Index i) { return v.data + t * v.step + a.schedule.order[p + i] * v.row; },
          [&](Index i) { return k.h[p + i]; });
      Cell::forward(a.staged.options, gate, inputs, c, h);
      piece.store(cells + (after + r) * units, c);
      piece.to_rows(to, h);
      if (a.tape) {
        LSTMX_UNROLL
        for (int g = 0; g < G; ++g) piece.store(gates + g * piece.size(), gate[g]);
      }
    });
  }
};

}  // namespace
