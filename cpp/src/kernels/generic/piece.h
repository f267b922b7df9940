// What a staged cell works on at once, as vectors: W units side by side in one row, or a quad of units in up to R rows,
// whose lanes are row by row. All loads and stores of a cell's operands go through it, so that a cell is written once.
#pragma once

namespace {

template <class S, bool quads>
struct Piece {
  using Real = typename S::Real;
  using Vec = typename S::Vec;
  static constexpr Index W = S::width;
  static constexpr int R = W / 4;
  Index unit, lanes;  // the first unit, valid units
  Index rows;         // valid rows

  // numbers in memory: of a quad, four a row, rows together
  Index size() const { return quads ? rows * 4 : W; }
  Vec load(const Real* p) const { return load_lanes<S>(p, size()); }
  void store(Real* p, Vec v) const { store_lanes<S>(p, v, size()); }

  // from an array by unit, of whole vectors
  Vec of_units(const Real* p) const {
    if constexpr (quads) {
      const Real* row[R];
      for (int r = 0; r < R; ++r) row[r] = p;
      return S::load_fours(row, unit, 4);
    } else {
      return S::load(p + unit);
    }
  }

  // from and to rows by unit; of a quad all R can be read, `rows` are written
  Vec of_rows(const Real* const (&row)[R]) const {
    if constexpr (quads) {
      return S::load_fours(row, unit, lanes);
    } else {
      return S::load(row[0] + unit);
    }
  }
  void to_rows(Real* const (&row)[R], Vec v) const {
    if constexpr (quads) {
      store_fours<0>(row, v);
    } else {
      S::store(row[0] + unit, v);
    }
  }

  // the gates of each unit, from and to a plane of gates, whose quads stand row by row
  void load_gates(const Real* p, Vec (&v)[4]) const {
    LSTMX_UNROLL
    for (int g = 0; g < 4; ++g) v[g] = quads && g / quad_vectors >= rows ? S::set(0.0f) : S::load(p + g * W);
    if constexpr (quads) S::gates_of_quads(v);
  }
  void store_gates(Real* p, Vec (&v)[4]) const {
    if constexpr (quads) S::quads_of_gates(v);
    LSTMX_UNROLL
    for (int g = 0; g < 4; ++g)
      if (!quads || g / quad_vectors < rows) S::store(p + g * W, v[g]);
  }
  // what all rows share, from an array [pieces][G][W] (layout.h)
  void gates_of_all(const Real* p, Vec (&v)[4]) const {
    LSTMX_UNROLL
    for (int g = 0; g < 4; ++g) v[g] = S::load(p + g * W);
  }
  // four numbers of each row, that all units share
  void of_each_row(const Real* p, Vec (&v)[4]) const {
    if constexpr (quads) {
      S::spread_fours(load(p), v);
    } else {
      LSTMX_UNROLL
      for (int g = 0; g < 4; ++g) v[g] = S::set(p[g]);
    }
  }

 private:
  static constexpr int quad_vectors = 16 / W;  // of a quad's gates

  template <int l>
  void store_fours(Real* const (&row)[R], Vec v) const {
    if constexpr (l < R) {
      if (l < rows) S::template store_four<l>(row[l] + unit, v, lanes);
      store_fours<l + 1>(row, v);
    }
  }
};

// What a staged cell reads of a piece beside its gates.
template <class S, class Cell>
struct CellInputs {
  using Real = typename S::Real;
  using Vec = typename S::Vec;
  Vec c;                                                      // before the step
  Vec unit_param[Cell::unit_params ? Cell::unit_params : 1];  // Cell::params_read
  bool keeps_h, keeps_c;                                      // whether there is:
  Vec h, keep_h;                                              // h before the step, and how much of it stays
  Vec keep_c;                                                 // how much of c stays
};

// no loop, for the compiler to keep what it reads in registers
template <int e, class Cell, class S, bool quads>
LSTMX_INLINE void read_params(CellInputs<S, Cell>& in, const Piece<S, quads>& piece, const RealOf<S>* unit_params,
                              Index stride, const Range& read) {
  if constexpr (e < Cell::unit_params) {
    if (e >= read.begin && e < read.end) in.unit_param[e] = piece.of_units(unit_params + e * stride);
    read_params<e + 1, Cell>(in, piece, unit_params, stride, read);
  }
}

// `c`: of the piece, before the step; view_row(view, i) and h_row(i): where the piece's i-th row of a view [T,B,*] and
// of h before the step are; a row more than there are reads zeros.
template <class Cell, class S, bool quads, class ViewRow, class HRow>
LSTMX_INLINE CellInputs<S, Cell> read_inputs(const Piece<S, quads>& piece, const RealOf<S>* c,
                                             const RealOf<S>* unit_params, Index stride,
                                             const StagedInputs<RealOf<S>>& staged, bool projects,
                                             const RealOf<S>* zeros, const ViewRow& view_row, const HRow& h_row) {
  const auto gather = [&](const auto& row_of) {
    const RealOf<S>* row[S::width / 4];
    for (Index i = 0; i < S::width / 4; ++i) row[i] = i < piece.rows ? row_of(i) : zeros;
    return piece.of_rows(row);
  };
  CellInputs<S, Cell> in;
  in.c = piece.load(c);
  read_params<0, Cell>(in, piece, unit_params, stride, Cell::params_read(staged));
  in.keeps_h = staged.keep_h.data != nullptr && !projects;  // of a projection it acts on what is projected
  in.keeps_c = staged.keep_c.data != nullptr;
  if (in.keeps_h) {
    in.h = gather(h_row);
    in.keep_h = gather([&](Index i) { return view_row(staged.keep_h, i); });
  }
  if (in.keeps_c) in.keep_c = gather([&](Index i) { return view_row(staged.keep_c, i); });
  return in;
}

}  // namespace
