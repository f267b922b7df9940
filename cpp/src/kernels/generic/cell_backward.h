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
        if constexpr (!Cell::staged) h[i] = i < rows ? step.row(step.k.a.y, p + i) : step.k.zeros;
      }
    }
  };

  // What a piece has at a step.
  template <bool quads>
  struct Place {
    const Step& step;
    const Piece<S, quads>& piece;
    Index p;  // its first position
    Real *gates, *dcs;
    const Real *c_prev, *c_after, *values;
    static constexpr Index units = quads ? 4 : W;

    Place(const Step& at, const Piece<S, quads>& of, Index first) : step(at), piece(of), p(first) {
      const Context& k = step.k;
      const Schedule& s = k.a.schedule;
      const Index B = k.a.size.B, rows = k.a.size.rows, t = step.t;
      const Index before = t == 0 ? 0 : B + s.first[t - 1];
      gates = k.gates + G * piece.unit * rows + (s.first[t] + p) * G * units;
      c_prev = k.cells + piece.unit * (B + rows) + (before + p) * units;
      dcs = k.dc + piece.unit * B + p * units;
      c_after = k.cells + piece.unit * (B + rows) + (B + s.first[t] + p) * units;
      values = k.values + piece.unit * rows + (s.first[t] + p) * units;
    }

    // a row more than there are reads zeros
    template <class RowOf>
    Vec gather(const RowOf& row_of) const {
      const Real* row[R];
      for (Index i = 0; i < R; ++i) row[i] = i < piece.rows ? row_of(p + i) : step.k.zeros;
      return piece.of_rows(row);
    }
    Vec of_rows(const Real* first) const {
      return gather([&](Index q) { return first + q * step.k.stride; });
    }
    void to_rows(Real* first, Vec v) const {
      Real* to[R];
      for (Index i = 0; i < R; ++i) to[i] = first + i * step.k.stride;
      piece.to_rows(to, v);
    }

    void read_gates(Vec (&g)[G]) const {
      LSTMX_UNROLL
      for (int j = 0; j < G; ++j) g[j] = piece.load(gates + j * piece.size());
    }
    // after the cell; zoneout and a reset leave another on the tape
    Vec c(const CellInputs<S, Cell>& in) const {
      if (!in.keeps_c && step.k.a.schedule.resets == nullptr) return piece.load(c_after);
      Vec g[G];
      read_gates(g);
      return Cell::cell_of(*step.k.a.staged.options, g, in);
    }
    Vec dh(const Sources& from) const {
      if (step.k.a.size.P != step.k.a.size.H) return of_rows(step.k.d_outputs);
      return S::add(piece.of_rows(from.dh), piece.of_rows(from.dy));
    }
    inline __attribute__((always_inline)) CellInputs<S, Cell> inputs() const {
      const RecurrentBackward<Real>& a = step.k.a;
      return read_inputs<Cell>(
          piece, c_prev, step.k.unit_params, L::vectors(a.size.H) * W, a.staged, a.size.P != a.size.H, step.k.zeros,
          [&](const ConstView3<Real>& view, Index i) { return step.row(view, p + i); },
          [&](Index i) { return step.h_before(p + i); });
    }

    // what the chunk's other gradients are made of
    Index row_in(const Range& chunk) const {
      const Index* first = step.k.a.schedule.first;
      return first[step.t] - first[chunk.begin] + p;
    }
    void add_output(const Range& chunk, bool keeps_h, Vec kept, Vec h) const {
      const Context& k = step.k;
      if (keeps_h) to_rows(k.kept_dh + p * k.stride, kept);
      if (k.a.size.P != k.a.size.H) to_rows(k.outputs + row_in(chunk) * k.stride, h);
    }
    void add_param(const Range& chunk, int e, Vec d) const {
      const Context& k = step.k;
      if (Cell::unit_gradient(k.a.gradients, e, k.a.size.H) == nullptr) return;
      const Index* first = k.a.schedule.first;
      Real* plane = k.planes + e * k.plane_size + piece.unit * (first[chunk.end] - first[chunk.begin]);
      piece.store(plane + row_in(chunk) * units, d);
    }
  };

  // body(place, sources) for the pieces of a step; `reads`: the sources
  template <class Body>
  LSTMX_INLINE void for_places(const Step& step, const Part& part, Index begin, Index count, bool reads,
                               const Body& body) {
    const Context k = step.k;  // what no store can change
    const Step local{k, step.t, step.carried};
    const Index H = k.a.size.H, first_wide = part.vectors.begin * W, first_quad = H / W * W;
    Sources sources;
    L::for_pieces_of_step(H, part, count, [&]<bool quads>(const Piece<S, quads>& piece, Index r) {
      if (reads && piece.unit == (quads ? first_quad : first_wide))
        sources.set(local, begin + r, piece.rows, quads ? R : 1);
      body(Place<quads>(local, piece, begin + r), sources);
    });
  }

  static void run(const Step& step, const Range& chunk, const Part& part, Index begin, Index count) {
    for_places(step, part, begin, count, !step.k.a.size.normalized,
               [&]<bool quads>(const Place<quads>& place, const Sources& from) { piece_back(place, chunk, from); });
  }

  // of a cell that normalizes, before: through h's function, whose gate becomes its gradient, to the gradient by what
  // it sees; with the normalized c, by position
  static void seen_back(const Step& step, const Range& chunk, const Part& part, Index begin, Index count) {
    for_places(step, part, begin, count, true, [&]<bool quads>(const Place<quads>& place, const Sources& from) {
      const Context& k = place.step.k;
      const VariantOptions& options = *k.a.staged.options;
      Vec kept = S::set(0.0f), h;
      const auto in = place.inputs();
      const Vec c = place.c(in);
      const Vec normalized = k.moments.normalized(place.piece, c, step.t, k.a.schedule.first[step.t] + place.p);
      const Vec value = place.piece.load(place.values);
      Real* out = place.gates + 3 * place.piece.size();
      Vec gate = place.piece.load(out);
      const Vec d_seen = Cell::output_back(options, gate, value, in, place.dh(from), kept, h);
      place.piece.store(out, gate);
      place.to_rows(k.seen + place.p * k.stride, normalized);
      place.to_rows(k.d_seen + place.p * k.stride, d_seen);
      place.add_output(chunk, in.keeps_h, kept, h);
    });
  }

  // the cell's gates become their gradients, and dc that of c before
  template <bool quads>
  LSTMX_INLINE void piece_back(const Place<quads>& place, const Range& chunk, const Sources& from) {
    const Step& step = place.step;
    const Context& k = step.k;
    const Piece<S, quads>& piece = place.piece;
    const RecurrentBackward<Real>& a = k.a;
    const Schedule& s = a.schedule;
    const Index t = step.t, p = place.p;
    Vec g[G];
    place.read_gates(g);
    Vec dc = piece.load(place.dcs);
    if (a.dcells.data) dc = S::add(dc, place.gather([&](Index q) { return step.row(a.dcells, q); }));
    if constexpr (Cell::staged) {
      const auto in = place.inputs();
      Vec d_param[Cell::unit_params ? Cell::unit_params : 1];
      bool halved = false;
      if constexpr (Cell::normalizes) {
        halved = a.size.normalized;
        if (halved) Cell::cell_back(*a.staged.options, g, in, place.of_rows(k.d_seen), dc, d_param);
      }
      if (!halved) {
        Vec kept = S::set(0.0f), h = kept;
        Cell::backward(a.staged.options, g, in, place.dh(from), dc, kept, d_param, h);
        place.add_output(chunk, in.keeps_h, kept, h);
      }
      LSTMX_UNROLL
      for (int e = 0; e < Cell::unit_params; ++e) place.add_param(chunk, e, d_param[e]);
    } else {
      Cell::backward(g, piece.of_rows(from.h), piece.load(place.c_prev), place.dh(from), dc);
    }
    piece.store_gates(place.gates, g);
    piece.store(place.dcs, dc);
    if (s.resets == nullptr) return;
    for (Index i = 0; i < piece.rows; ++i)
      if (is_reset(s, t, p + i)) L::set_zero(place.dcs + i * place.units, place.units);
  }
};

}  // namespace
