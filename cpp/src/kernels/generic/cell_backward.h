// One cell back through a step: its gates become their gradients in memory, piece by piece, and dc that of c before.
// What a staged cell gives besides goes to the context's buffers.
#pragma once

namespace {

template <class S, class Cell>
struct CellBackward : Layout<S> {
  using L = Layout<S>;
  using B = BackwardFrame<S>;
  using Real = typename S::Real;
  using Vec = typename S::Vec;
  using Context = typename B::Context;
  using Step = typename B::Step;
  using L::W, L::G, L::R;

  // The rows that a piece reads; what is beyond its rows is zeros.
  struct Sources {
    const Real *dh[R], *dy[R], *h[R];

    void set(const Step& step, Index p, Index rows, int count) {
      for (int i = 0; i < count; ++i) {
        dh[i] = i < rows ? step.carried_dh(p + i) : step.k.zeros;
        dy[i] = i < rows ? step.row(step.k.a.dy, p + i) : step.k.zeros;
        h[i] = i < rows ? step.row(step.k.a.y, p + i) : step.k.zeros;
      }
    }
  };

  static void run(const Step& step, const Range& chunk, const Part& part, Index begin, Index count) {
    const Index H = step.k.a.size.H;
    const Index first_quad = H / W * W;
    Sources sources;
    L::for_pieces_of_step(H, part, count, [&]<bool quads>(const Piece<S, quads>& piece, Index r) {
      if (!quads || piece.unit == first_quad) sources.set(step, begin + r, piece.rows, quads ? R : 1);
      piece_back(step, chunk, piece, begin + r, sources);
    });
  }

  // the cell's gates become their gradients, and dc that of c before
  template <bool quads>
  LSTMX_INLINE void piece_back(const Step& step, const Range& chunk, const Piece<S, quads>& piece, Index p,
                               const Sources& from) {
    const Context& k = step.k;
    const RecurrentBackward<Real>& a = k.a;
    const Schedule& s = a.schedule;
    constexpr Index units = quads ? 4 : W;
    const Index B = a.size.B, rows = a.size.rows, t = step.t;
    const bool projects = a.size.P != a.size.H;
    // a row more than there are reads zeros
    const auto gather = [&](const auto& row_of) {
      const Real* row[R];
      for (Index i = 0; i < R; ++i) row[i] = i < piece.rows ? row_of(p + i) : k.zeros;
      return piece.of_rows(row);
    };
    Real* gates = k.gates + G * piece.unit * rows + (s.first[t] + p) * G * units;
    const Index before = t == 0 ? 0 : B + s.first[t - 1];
    const Real* c_prev = k.cells + piece.unit * (B + rows) + (before + p) * units;
    Real* dcs = k.dc + piece.unit * B + p * units;
    Vec g[G];
    LSTMX_UNROLL
    for (int j = 0; j < G; ++j) g[j] = piece.load(gates + j * piece.size());
    Vec dc = piece.load(dcs);
    if (a.dcells.data) dc = S::add(dc, gather([&](Index q) { return step.row(a.dcells, q); }));
    const Vec dh = projects ? gather([&](Index q) { return k.d_outputs + q * k.stride; })
                            : S::add(piece.of_rows(from.dh), piece.of_rows(from.dy));
    if constexpr (Cell::staged) {
      const auto in = read_inputs<Cell>(
          piece, c_prev, k.unit_params, L::vectors(a.size.H) * W, a.staged, projects, k.zeros,
          [&](const ConstView3<Real>& view, Index i) { return step.row(view, p + i); },
          [&](Index i) { return step.h_before(p + i); });
      Vec kept = S::set(0.0f), h = kept, d_param[Cell::unit_params ? Cell::unit_params : 1];
      Cell::backward(a.staged.options, g, in, dh, dc, kept, d_param, h);
      const Index row = s.first[t] - s.first[chunk.begin] + p, all = s.first[chunk.end] - s.first[chunk.begin];
      const auto write_rows = [&](Real* first, Vec v) {
        Real* to[R];
        for (Index i = 0; i < R; ++i) to[i] = first + i * k.stride;
        piece.to_rows(to, v);
      };
      if (in.keeps_h) write_rows(k.kept_dh + p * k.stride, kept);
      if (projects) write_rows(k.outputs + row * k.stride, h);
      if (Cell::has_unit_params(a.staged)) {
        for (int e = 0; e < Cell::unit_params; ++e)
          piece.store(k.planes + e * B::plane_size(a.size) + piece.unit * all + row * units, d_param[e]);
      }
    } else {
      Cell::backward(g, piece.of_rows(from.h), piece.load(c_prev), dh, dc);
    }
    if constexpr (quads) S::quads_of_gates(g);
    LSTMX_UNROLL
    for (int j = 0; j < G; ++j)
      if (!quads || j * W < G * piece.size()) S::store(gates + j * W, g[j]);
    piece.store(dcs, dc);
    if (s.resets == nullptr) return;
    for (Index i = 0; i < piece.rows; ++i)
      if (is_reset(s, t, p + i)) L::set_zero(dcs + i * units, units);
  }
};

}  // namespace
