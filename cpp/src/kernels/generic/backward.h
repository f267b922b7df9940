// The backward pass of a cell through time, the mirror of forward.h and staged_forward.h.
//
// Only the carry dh = dG U runs step by step, and with a projection V also d(o tanh(c)) = dh V. Time is cut into
// chunks, from the end; chunk_gradients.h has what is merged over a chunk's rows.
#pragma once

namespace {

template <class S>
struct Backward : BackwardFrame<S> {
  using F = BackwardFrame<S>;
  using L = Layout<S>;
  using Real = typename S::Real;
  using Vec = typename S::Vec;
  using Context = typename F::Context;
  using Step = typename F::Step;
  using CellSteps = typename F::CellSteps;
  using L::W, L::G, L::PW, L::QW, L::R;

  static Index tiles_size(const RecurrentSizes& n, int threads) {
    if constexpr (makes_parts<S>) return TileBackward<S>::work_size(n, threads);
    return 0;
  }

  static Index work_size(const CellTraits<S>& cell, const RecurrentSizes& n, int threads) {
    return tiles_size(n, threads) + F::work_size(cell, n);
  }

  static void run(const RecurrentBackward<Real>& a, const CellTraits<S>& cell, const CellSteps& of_cell) {
    const RecurrentSizes& n = a.size;
    const Groups groups = Groups::of_columns(n.H, W);
    const Context k = F::make_context(a, cell, of_cell, tiles_size(n, a.threads));
    L::set_zero(k.zeros, k.stride);
    if (cell.unit_params > 0) L::set_zero(k.d_units, cell.unit_params * k.stride);
    if (n.normalized) {
      L::set_zero(k.d_gains, F::gain_groups(n) * 3 * F::gain_size(n));
      L::set_zero(k.d_seen_params, F::gain_groups(n) * 2 * k.stride);
    }
    parallel(L::team_size_of(n, a.threads, groups.count, 2.0), [&](const Team& team) {
      const Part part = L::part_of(n, a.schedule, team, groups);
      if (a.engine) a.engine->enter();
      L::read_state(a.dc_n, a.schedule, part, n.H, k.dc, n.B);
      if (cell.staged) clear_kept(k, part);
      F::clear_panels(k, team);
      if (a.dx.data) F::clear_padding(k, team);
      const Index steps = F::chunk_steps(n);
      int turn = 0;
      for (Index end = n.T; end > 0; turn ^= 1) {
        const Index begin = end > steps ? end - steps : 0;
        for (Index t = end - 1; t >= begin; --t) {
          step_back(k, t, {begin, end}, part, team);
          if (part.meets) team.barrier();
        }
        F::find_rows(k, begin, end, k.rows[turn], team);
        team.barrier();
        merged_gradients(k, begin, end, k.rows[turn], team);
        if (cell.staged) {
          F::other_gradients(k, begin, end, k.rows[turn], team);
          team.barrier();  // the next chunk's rows go where this one's were
        }
        end = begin;
      }
      initial_gradients(k, part, team);
      if (a.engine) a.engine->leave();
      F::add_panels(k, team);
    });
    if (cell.unit_params > 0) F::add_units(k);
    if (n.normalized) {
      F::add_gains(k);
      F::add_seen_params(k);
    }
  }

  // dx of a chunk, which an engine has made with dh, and dW
  static void merged_gradients(const Context& k, Index begin, Index end, const typename F::Rows& rows,
                               const Team& team) {
    if constexpr (makes_parts<S>) {
      if (k.a.engine) return TileBackward<S>::weight_gradients(k, begin, end, rows, team);
    }
    if (k.a.dx.data) F::input_gradients(k, begin, end, rows, team);
    F::weight_gradients(k, begin, end, rows, team);
  }

  // dh = dG U of step t, for the part's columns and its positions alive then
  static void carry_back(const Context& k, Index t, const Part& part, const Team& team) {
    const Schedule& s = k.a.schedule;
    const Index begin = s.first[t] + part.positions.begin, count = alive_in(s, t, part.positions);
    const auto carry = [&](const Range& rows) { carry_rows(k, rows, t, part); };
    if constexpr (makes_parts<S>) {
      if (k.a.engine) {
        const auto dx = [&](Index r) { return k.a.dx.data + t * k.a.dx.step + s.order[r - s.first[t]] * k.a.dx.row; };
        TileBackward<S>::step_back(
            k, t, part, team, t > 0 || k.a.dh_0, [&](Index row) { carry({row, row + 1}); },
            [&](Index row) { F::input_rows(k, {row, row + 1}, dx); });
        if (k.cell.staged) finish_carry(k, t, part);
        return;
      }
    }
    carry({begin, begin + count});
    if (k.cell.staged) finish_carry(k, t, part);
  }

  // of some rows of the tape, which are of step t
  static void carry_rows(const Context& k, const Range& rows, Index t, const Part& part) {
    const Index H = k.a.size.H, first_row = k.a.schedule.first[t];
    for_panels<S>(k.a.size.P, [&]<class X>(Index first, Index vectors, Index) {
      const Range units{first / W, first / W + vectors};
      if (units.begin < part.vectors.begin || units.begin >= part.vectors.end) return;
      with_vectors<X>(vectors, [&]<int V>() {
        ProductTile<Real> tile;
        tile.lanes = X::width;
        F::template gate_product<X, V>(k, k.gates_h, k.u + first * G * H, rows.begin, rows.end, tile,
                                       [&](Index r, Index m) {
                                         const Index p = r - first_row;
                                         for (Index i = 0; i < m; ++i) tile.c[i] = k.dh + (p + i) * k.stride + first;
                                         if (t > 0 && k.far && m > 1 && !tile.goes_on)
                                           fetch_step(k, t - 1, p, m, units);
                                       });
      });
    });
  }

  // what the cell will read at step t for some positions and units, into L2 while the product runs: the
  // hardware does not foresee rows of steps from the last to the first
  static void fetch_step(const Context& k, Index t, Index begin, Index count, const Range& vectors) {
    const RecurrentBackward<Real>& a = k.a;
    const Schedule& s = a.schedule;
    const Index H = a.size.H, B = a.size.B, rows = a.size.rows;
    const Index row = s.first[t] + begin, before = begin + (t == 0 ? 0 : B + s.first[t - 1]);
    const Step step{k, t, 0};
    L::for_pieces(H, vectors, [&](Index unit, Index width, Index) {
      fetch<2>(k.gates + G * (unit * rows + row * width), count * G * width);
      fetch<2>(k.cells + unit * (B + rows) + before * width, count * width);
    });
    for (Index p = begin; p < begin + count; ++p) {
      const Index column = vectors.begin * W, columns = (vectors.end - vectors.begin) * W;
      fetch<2>(step.row(a.y, p) + column, columns);
      fetch<2>(step.row(a.dy, p) + column, columns);
    }
  }

  // what of dh comes another way than unchanged from the product: through a mask, or past the cell
  static void finish_carry(const Context& k, Index t, const Part& part) {
    const StagedInputs<Real>& staged = k.a.staged;
    const Index H = k.a.size.H, P = k.a.size.P, begin = part.positions.begin;
    const Index end = begin + alive_in(k.a.schedule, t, part.positions);
    for (Index p = begin; p < end; ++p) {
      Real* dh = k.dh + p * k.stride;
      const Real* kept = k.kept_dh + p * k.stride;
      if (k.masked) {
        const Real* mask = staged.h_mask + k.a.schedule.order[p] * P;
        L::for_columns(part, H, P, [&](Index j) { dh[j] *= mask[j]; });
      }
      if (staged.keep_h.data) L::for_columns(part, H, P, [&](Index j) { dh[j] += kept[j]; });
    }
  }

  static void clear_kept(const Context& k, const Part& part) {
    for (Index p = part.positions.begin; p < part.positions.end; ++p)
      L::write_columns(nullptr, part, k.a.size.H, k.a.size.P, k.kept_dh + p * k.stride);
  }

  // `chunk`: its steps
  static void step_back(const Context& k, Index t, const Range& chunk, const Part& part, const Team& team) {
    const RecurrentBackward<Real>& a = k.a;
    const Schedule& s = a.schedule;
    const Index begin = part.positions.begin, count = alive_in(s, t, part.positions);
    if (count == 0) return;
    const bool last = t + 1 == a.size.T;
    if (!last) carry_back(k, t + 1, part, team);
    const Step step{k, t, last ? begin : begin + alive_in(s, t + 1, part.positions)};
    if (a.size.P != a.size.H) project_back(k, step, chunk, begin, count);
    if (a.size.normalized) normalized_back(k, step, chunk, part, begin, count);
    k.steps.back(step, chunk, part, begin, count);
    if (a.size.normalized) products_back(k, step, part, begin, count);
  }

  // the gradient by c through what h sees of it
  static void normalized_back(const Context& k, const Step& step, const Range& chunk, const Part& part, Index begin,
                              Index count) {
    using N = Normalize<S>;
    const Index H = k.a.size.H, t = step.t, row = k.a.schedule.first[t];
    const Real* gain = k.unit_params + 3 * L::vectors(H) * W;  // of c
    k.steps.seen_back(step, chunk, part, begin, count);
    if (k.a.size.by_batch) {
      Real *seen = k.seen + begin * k.stride, *d_seen = k.d_seen + begin * k.stride;
      N::for_columns_of_units(H, part, [&](Index unit, Index) {
        Vec d_gain = S::load(k.d_seen_params + unit), d_bias = S::load(k.d_seen_params + k.stride + unit);
        N::columns_back(d_seen + unit, S::load(gain + unit), seen + unit, d_seen + unit, k.stride, count,
                        k.a.staged.running.steps > 0, S::load(k.moments.at(3, t, row) + unit), d_gain, d_bias);
        S::store(k.d_seen_params + unit, d_gain);
        S::store(k.d_seen_params + k.stride + unit, d_bias);
      });
    } else {
      N::for_row_groups(begin, count, [&](Index p, Index rows) {
        N::units_back(k.d_seen + p * k.stride, k.seen + p * k.stride, k.stride, H, rows, gain,
                      k.moments.at(3, t, row + p), k.d_seen_params + p / R * 2 * k.stride);
      });
    }
  }

  // the gates' gradients become those of both products, and of the gains
  static void products_back(const Context& k, const Step& step, const Part& part, Index begin, Index count) {
    if (k.a.size.by_batch) {
      columns_back(k, step, part, begin, count);
    } else {
      rows_back(k, step, begin, count);
    }
  }

  static void columns_back(const Context& k, const Step& step, const Part& part, Index begin, Index count) {
    using N = Normalize<S>;
    const Index H = k.a.size.H, all = k.a.size.rows, t = step.t, row = k.a.schedule.first[t];
    Real* sides[2] = {k.gates_x, k.gates_h};
    for (int side = 0; side < 2; ++side) {
      const Index size = F::gain_size(k.a.size);
      Real *n = sides[side], *d_gains = k.d_gains + side * size, *d_biases = k.d_gains + 2 * size;
      const Real* scales = k.moments.at(side, t, row);
      N::for_columns_of_gates(H, part, all, row + begin, [&](Index at, Index distance, Index by_unit, int, Index) {
        Vec d_gain = S::load(d_gains + by_unit), d_bias = S::load(d_biases + by_unit);
        N::columns_back(k.gates + at, S::load(k.gains[side] + by_unit), n + at, n + at, distance, count,
                        k.a.staged.running.steps > 0, S::load(scales + by_unit), d_gain, d_bias);
        S::store(d_gains + by_unit, d_gain);
        if (side == 0) S::store(d_biases + by_unit, d_bias);
      });
    }
  }

  static void rows_back(const Context& k, const Step& step, Index begin, Index count) {
    using N = Normalize<S>;
    const Index H = k.a.size.H, all = k.a.size.rows, t = step.t, row = k.a.schedule.first[t];
    const Index size = F::gain_size(k.a.size);
    const auto side = [&](int i, Index p) -> typename N::Side {
      return {i == 0 ? k.gates_x : k.gates_h, k.gains[i], k.moments.at(i, t, row + p),
              k.along + (i * k.a.size.B + p) * G};
    };
    const auto finish = [&](Index p, Index rows) {
      N::gates_back(k.gates, {side(0, p), side(1, p)}, H, all, row + p, rows, k.d_gains + (p / R * 3 + 2) * size);
    };
    // a group's sums are waited for while the next one's are made
    Index before = 0, rows_before = 0;
    N::for_row_groups(begin, count, [&](Index p, Index rows) {
      for (int i = 0; i < 2; ++i)
        N::gates_along(k.gates, side(i, p), H, all, row + p, rows, k.d_gains + (p / R * 3 + i) * size);
      if (rows_before > 0) finish(before, rows_before);
      before = p;
      rows_before = rows;
    });
    finish(before, rows_before);
  }

  // dh of the projected h, kept for the gradient of the projection, and from it that of what was projected
  static void project_back(const Context& k, const Step& step, const Range& chunk, Index begin, Index count) {
    const RecurrentBackward<Real>& a = k.a;
    const Index P = a.size.P;
    Real* rows = k.dh_rows + (a.schedule.first[step.t] - a.schedule.first[chunk.begin] + begin) * k.stride;
    for (Index r = 0; r < count; ++r) {
      const Real *carried = step.carried_dh(begin + r), *dy = step.row(a.dy, begin + r);
      const Real* keep = step.row(a.staged.keep_h, begin + r);
      Real *to = rows + r * k.stride, *kept = k.kept_dh + (begin + r) * k.stride;
      for (Index j = 0; j < P; ++j) to[j] = carried[j] + dy[j];
      for (Index j = 0; a.staged.keep_h.data && j < P; ++j) {
        kept[j] = keep[j] * to[j];
        to[j] *= 1.0f - keep[j];
      }
    }
    multiply_rows<S>(
        0, count, P, k.projection, nullptr, a.size.H, [&](Index r) { return rows + r * k.stride; },
        [&](Index r) { return k.d_outputs + (begin + r) * k.stride; });
  }

  static void initial_gradients(const Context& k, const Part& part, const Team& team) {
    const RecurrentBackward<Real>& a = k.a;
    const Schedule& s = a.schedule;
    const Index H = a.size.H, P = a.size.P;
    if (a.size.T > 0 && (a.dh_0 || (a.engine && a.dx.data))) carry_back(k, 0, part, team);
    for (Index p = part.positions.begin; p < part.positions.end; ++p) {
      const Index b = s.order[p];
      if (a.dh_0) {
        const Real* dh = nullptr;
        if (s.length[p] == 0) {
          dh = a.dh_n ? a.dh_n + b * P : nullptr;
        } else if (!is_reset(s, 0, p)) {
          dh = k.dh + p * k.stride;
        }
        L::write_columns(dh, part, H, P, a.dh_0 + b * P);
      }
      if (!a.dc_0) continue;
      L::for_pieces(H, part.vectors, [&](Index unit, Index width, Index lanes) {
        const Real* dc = k.dc + unit * a.size.B + p * width;
        store_lanes<S>(a.dc_0 + b * H + unit, load_lanes<S>(dc, width), lanes);
      });
    }
  }
};

}  // namespace
