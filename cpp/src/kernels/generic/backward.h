// The backward pass of a cell through time, the mirror of forward.h and staged_forward.h.
//
// Only the carry dh = dG U runs step by step, and with a projection V also d(o tanh(c)) = dh V. Time is cut into
// chunks, from the end: when a chunk's gates have become their gradients, they are still in L2 for the products merged
// over its rows, dX = dG W (split over rows) and dW = dG^T x, dU = dG^T h, dV (split over tiles of the result). The
// first three are summed in the layout of the packed forward weights and added to the parameters' gradients at the end.
#pragma once

namespace {

template <class S>
struct Backward : Layout<S> {
  using L = Layout<S>;
  using Real = typename S::Real;
  using Vec = typename S::Vec;
  using L::W, L::G, L::PW, L::QW, L::R;
  static constexpr Index least_rows = 384;              // of a chunk
  static constexpr Index panel_limit = L::l2_size / 4;  // of weights that are used for all rows of a product

  static Index chunk_steps(const RecurrentSizes& n) {
    if (n.B == 0 || n.T == 0) return 1;
    const Index by_rows = (least_rows + n.B - 1) / n.B, by_size = L::l2_size / (n.B * G * L::padded(n.H));
    const Index steps = by_rows > by_size ? by_rows : by_size;
    return steps < n.T ? steps : n.T;
  }

  static Index chunk_rows(const RecurrentSizes& n) { return chunk_steps(n) * n.B; }
  static Index pointers_size(const RecurrentSizes& n) { return (4 * chunk_rows(n) * L::pointer_size + W - 1) / W * W; }

  // of the gradients of what the cell has for each unit, by row of a chunk, in the layout of the tape's cells
  static Index plane_size(const RecurrentSizes& n) { return L::padded(n.H) * chunk_rows(n); }

  static Index work_size(const CellTraits<S>& cell, const RecurrentSizes& n) {
    const Index stride = L::vectors(n.H > n.P ? n.H : n.P) * W;
    Index size = stride * (2 * n.B + 1) + G * L::vectors(n.H) * W * L::panel_rows(n.I, n.P) + 2 * pointers_size(n) +
                 (packs_features(n) ? row_block * (n.I + n.P) : 0);
    if (cell.staged) size += stride * n.B + cell.unit_params * (stride + plane_size(n));
    if (n.P != n.H) size += stride * n.B + 2 * (chunk_rows(n) * stride);
    return size;
  }

  // Where the rows of a chunk are; two are in turn, for a thread may be one chunk ahead of another.
  struct Rows {
    const Real **x, **h, **dh;
    Real** dx;
  };

  struct Step;
  // a cell, back through `count` positions of a step from `begin` on; `chunk`: the steps of the chunk
  using CellBack = void (*)(const Step&, const Range& chunk, const Part& part, Index begin, Index count);

  struct Context {
    const RecurrentBackward<Real>& a;
    const CellTraits<S>& cell;
    CellBack cell_back;

    Context(const RecurrentBackward<Real>& args, const CellTraits<S>& traits, CellBack back)
        : a(args), cell(traits), cell_back(back) {}

    Index stride;           // H or P in whole vectors
    Real *gates, *cells;    // the tape
    const Real* masked;     // the tape's, by row [P]; or null
    Real *zeros, *dc, *dh;  // [stride], for each block [B][units], [B][stride] by position
    Real* d_panel;          // for each block [I+P+1][gates of the block]: x, h, bias
    const Real *u, *w;      // packed backward
    const Real *unit_params, *projection;
    Real* features;          // of a block of rows, packed
    Real* kept_dh;           // [B][stride]: of h before, other than through weight_hh
    Real *d_units, *planes;  // [unit_params][stride], [unit_params][plane_size]
    Real *d_outputs = nullptr, *dh_rows = nullptr,
         *outputs = nullptr;  // of a projection: [B][stride], by row of a chunk [stride]
    Rows rows[2];
  };

  static void run(const RecurrentBackward<Real>& a, const CellTraits<S>& cell, CellBack cell_back) {
    const RecurrentSizes& n = a.size;
    const Groups groups = Groups::of_columns(n.H, W);
    const Context k = make_context(a, cell, cell_back);
    L::set_zero(k.zeros, k.stride);
    if (cell.unit_params > 0) L::set_zero(k.d_units, cell.unit_params * k.stride);
    parallel(L::team_size_of(n, a.threads, groups.count, 2.0), [&](const Team& team) {
      const Part part = L::part_of(n, a.schedule, team, groups);
      L::read_state(a.dc_n, a.schedule, part, n.H, k.dc, n.B);
      if (cell.staged) clear_kept(k, part);
      clear_panels(k, team);
      if (a.dx.data) clear_padding(k, team);
      const Index steps = chunk_steps(n);
      int turn = 0;
      for (Index end = n.T; end > 0; turn ^= 1) {
        const Index begin = end > steps ? end - steps : 0;
        for (Index t = end - 1; t >= begin; --t) {
          step_back(k, t, {begin, end}, part);
          if (part.meets) team.barrier();
        }
        find_rows(k, begin, end, k.rows[turn], team);
        team.barrier();
        if (a.dx.data) input_gradients(k, begin, end, k.rows[turn], team);
        weight_gradients(k, begin, end, k.rows[turn], team);
        if (cell.staged) {
          other_gradients(k, begin, end, k.rows[turn], team);
          team.barrier();  // the next chunk's rows go where this one's were
        }
        end = begin;
      }
      initial_gradients(k, part);
      add_panels(k, team);
    });
    if (cell.unit_params > 0) add_units(k);
  }

  static Context make_context(const RecurrentBackward<Real>& a, const CellTraits<S>& cell, CellBack cell_back) {
    const RecurrentSizes& n = a.size;
    Context k(a, cell, cell_back);
    k.stride = L::vectors(n.H > n.P ? n.H : n.P) * W;
    Real* next = a.work;
    const auto take = [&next](Index size) {
      Real* taken = next;
      next += size;
      return taken;
    };
    k.gates = a.tape;
    k.cells = a.tape + L::tape_gates(n);
    k.masked = n.masked ? k.cells + L::tape_cells(n) : nullptr;
    k.zeros = take(k.stride);
    k.dc = take(k.stride * n.B);
    k.dh = take(k.stride * n.B);
    k.d_panel = take(G * L::vectors(n.H) * W * L::panel_rows(n.I, n.P));
    k.u = a.packed;
    k.w = a.packed + G * n.H * L::vectors(n.P) * W;
    k.unit_params = a.packed + L::backward_panels(n.I, n.H, n.P);
    k.projection = k.unit_params + L::unit_params_size(cell, n.H);
    const Index most = chunk_rows(n);
    for (Rows& rows : k.rows) {
      rows.x = reinterpret_cast<const Real**>(take(pointers_size(n)));
      rows.h = rows.x + most;
      rows.dh = rows.h + most;
      rows.dx = const_cast<Real**>(rows.dh + most);
    }
    k.features = take(packs_features(n) ? row_block * (n.I + n.P) : 0);
    if (cell.staged) {
      k.kept_dh = take(k.stride * n.B);
      k.d_units = take(cell.unit_params * k.stride);
      k.planes = take(cell.unit_params * plane_size(n));
    }
    if (n.P != n.H) {
      k.d_outputs = take(k.stride * n.B);
      k.dh_rows = take(most * k.stride);
      k.outputs = take(most * k.stride);
    }
    return k;
  }

  // ---- step by step

  // C rows = dG rows * a packed [G*H, columns], for the rows [begin, end) of the tape: body(row, rows, tile) says where
  // C is. Of weights that do not stay in L2 with what else is there, a stretch of k is used for all rows before the
  // next.
  template <int V, class Body>
  static void gate_product(const Context& k, const Real* panel, Index begin, Index end, ProductTile<Real>& tile,
                           const Body& body) {
    const Index wide = k.a.size.H / W, most = panel_limit / (PW * V * W);
    const Index count = wide > most + most / 2 ? (wide + most - 1) / most : 1;
    const Groups stretches{wide, count};
    tile.init = nullptr;
    tile.c_vector = W;
    for (Index i = 0; i < count; ++i) {
      const Index first = stretches.first(i);
      tile.goes_on = i > 0;
      tile.panel = panel + first * PW * V * W;
      for_tiles(begin, end, S::tile_rows[V], [&](Index r, Index m) {
        gate_operands(k, r, first, stretches.first(i + 1), tile);
        body(r, m);
        run_product<S, V, S::tile_rows[V], PW, QW, QW>(m, tile);
      });
    }
  }

  // the rows of dG from r on: the wide blocks [first, last), and after the last of all the whole quads, then the valid
  // lanes of the last quad
  LSTMX_INLINE void gate_operands(const Context& k, Index r, Index first, Index last, ProductTile<Real>& tile) {
    const Index H = k.a.size.H, wide = H / W, quads = H % W / 4, rows = k.a.size.rows;
    Operand<Real>& blocks = tile.operand[0];
    blocks.segment = rows * PW;
    blocks.depth = PW;
    blocks.count = last - first;
    blocks.row[0] = k.gates + first * rows * PW + r * PW;
    Operand<Real>& whole = tile.operand[1];
    whole.segment = rows * QW;
    whole.depth = QW;
    whole.count = last < wide ? 0 : quads;
    whole.row[0] = k.gates + wide * rows * PW + r * QW;
    Operand<Real>& rest = tile.operand[2];
    rest.segment = 4;
    rest.depth = H % 4;
    rest.count = last < wide || H % 4 == 0 ? 0 : G;
    rest.row[0] = whole.row[0] + quads * rows * QW;
  }

  // dh = dG U of step t, for the part's columns and its positions alive then
  static void carry_back(const Context& k, Index t, const Part& part) {
    const Index H = k.a.size.H, P = k.a.size.P, first_row = k.a.schedule.first[t];
    const Index begin = first_row + part.positions.begin, end = begin + alive_in(k.a.schedule, t, part.positions);
    const Groups groups = Groups::of_columns(P, W);
    for (Index g = 0; g < groups.count; ++g) {
      const Index first = groups.first(g), vectors = groups.first(g + 1) - first;
      if (first < part.vectors.begin || first >= part.vectors.end) continue;
      with_constant(vectors, [&]<int V>() {
        ProductTile<Real> tile;
        tile.lanes = W;
        gate_product<V>(k, k.u + first * W * G * H, begin, end, tile, [&](Index r, Index m) {
          for (Index i = 0; i < m; ++i) tile.c[i] = k.dh + (r - first_row + i) * k.stride + first * W;
        });
      });
    }
    if (k.cell.staged) finish_carry(k, t, part);
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

  // Where what a step reads is, by position.
  struct Step {
    const Context& k;
    Index t, carried;  // positions below `carried` go on to the step after

    // from the step after, or, at a row's last step, the final state's
    const Real* carried_dh(Index p) const {
      const RecurrentBackward<Real>& a = k.a;
      if (p >= carried) return a.dh_n ? a.dh_n + a.schedule.order[p] * a.size.P : k.zeros;
      return is_reset(a.schedule, t + 1, p) ? k.zeros : k.dh + p * k.stride;
    }
    template <class View>
    const Real* row(const View& view, Index p) const {
      return view.data ? view.data + t * view.step + k.a.schedule.order[p] * view.row : k.zeros;
    }
    const Real* h_before(Index p) const {
      const RecurrentBackward<Real>& a = k.a;
      const Index b = a.schedule.order[p];
      if (is_reset(a.schedule, t, p)) return k.zeros;
      if (t > 0) return a.y.data + (t - 1) * a.y.step + b * a.y.row;
      return a.h_0 ? a.h_0 + b * a.size.P : k.zeros;
    }
  };

  // `chunk`: its steps
  static void step_back(const Context& k, Index t, const Range& chunk, const Part& part) {
    const RecurrentBackward<Real>& a = k.a;
    const Schedule& s = a.schedule;
    const Index begin = part.positions.begin, count = alive_in(s, t, part.positions);
    if (count == 0) return;
    const bool last = t + 1 == a.size.T;
    if (!last) carry_back(k, t + 1, part);
    const Step step{k, t, last ? begin : begin + alive_in(s, t + 1, part.positions)};
    if (a.size.P != a.size.H) project_back(k, step, chunk, begin, count);
    k.cell_back(step, chunk, part, begin, count);
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
    for_column_groups<S>(a.size.H, [&](Index column, Index vectors, Index) {
      with_constant(vectors, [&]<int V>() {
        ProductTile<Real> tile;
        tile.operand[0].segment = 0;
        tile.operand[0].depth = P;
        tile.operand[0].count = 1;
        tile.operand[1].count = 0;
        tile.init = nullptr;
        tile.goes_on = false;
        tile.panel = k.projection + column * P;
        tile.c_vector = tile.lanes = W;
        for_tiles(0, count, S::tile_rows[V], [&](Index r, Index m) {
          for (Index i = 0; i < m; ++i) {
            tile.operand[0].row[i] = rows + (r + i) * k.stride;
            tile.c[i] = k.d_outputs + (begin + r + i) * k.stride + column;
          }
          run_product<S, V, S::tile_rows[V], 0, 0>(m, tile);
        });
      });
    });
  }

  static void initial_gradients(const Context& k, const Part& part) {
    const RecurrentBackward<Real>& a = k.a;
    const Schedule& s = a.schedule;
    const Index H = a.size.H, P = a.size.P;
    if (a.dh_0 && a.size.T > 0) carry_back(k, 0, part);
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

  // ---- merged over the rows of a chunk

  static void find_rows(const Context& k, Index begin, Index end, const Rows& rows, const Team& team) {
    const RecurrentBackward<Real>& a = k.a;
    const Schedule& s = a.schedule;
    const Range share = team.share(end - begin);
    for (Index t = begin + share.begin; t < begin + share.end; ++t) {
      const Index r = s.first[t] - s.first[begin], alive = s.alive[t];
      set_pointers(a.x.data + t * a.x.step, a.x.row, s.order, alive, rows.x + r);
      set_pointers(a.dx.data + t * a.dx.step, a.dx.row, s.order, alive, rows.dx + r);
      const Real* h = t > 0 ? a.y.data + (t - 1) * a.y.step : a.h_0 ? a.h_0 : k.zeros;
      set_pointers(h, t > 0 ? a.y.row : a.h_0 ? a.size.P : 0, s.order, alive, rows.h + r);
      if (k.cell.staged) {
        for (Index i = r; k.masked && i < r + alive; ++i) rows.h[i] = k.masked + (s.first[begin] + i) * a.size.P;
        for (Index i = r; k.dh_rows && i < r + alive; ++i) rows.dh[i] = k.dh_rows + i * k.stride;
      }
      if (s.resets == nullptr) continue;
      for (Index p = 0; p < alive; ++p)
        if (is_reset(s, t, p)) rows.h[r + p] = k.zeros;
    }
  }

  static void clear_padding(const Context& k, const Team& team) {
    const RecurrentBackward<Real>& a = k.a;
    const Range share = team.share(a.size.B);
    for (Index p = share.begin; p < share.end; ++p) {
      for (Index t = a.schedule.length[p]; t < a.size.T; ++t) {
        Real* row = a.dx.data + t * a.dx.step + a.schedule.order[p] * a.dx.row;
        for (Index i = 0; i < a.size.I; ++i) row[i] = 0.0f;
      }
    }
  }

  // dX = dG W
  static void input_gradients(const Context& k, Index begin, Index end, const Rows& rows, const Team& team) {
    const Index I = k.a.size.I, H = k.a.size.H, first_row = k.a.schedule.first[begin];
    const Range share = team.share(k.a.schedule.first[end] - first_row);
    for_column_groups<S>(I, [&](Index first, Index vectors, Index lanes) {
      with_constant(vectors, [&]<int V>() {
        ProductTile<Real> tile;
        tile.lanes = lanes;
        gate_product<V>(k, k.w + first * G * H, first_row + share.begin, first_row + share.end, tile,
                        [&](Index r, Index m) {
                          for (Index i = 0; i < m; ++i) tile.c[i] = rows.dx[r - first_row + i] + first;
                        });
      });
    });
  }

  // Calls body(block, first feature, features) for this thread's tiles of the panels; a tile lies within x, within h,
  // or is the bias.
  template <class Body>
  static void for_panel_tiles(const Context& k, const Team& team, const Body& body) {
    const Index I = k.a.size.I, H = k.a.size.H, P = k.a.size.P;
    const Range all{0, L::vectors(H)};
    const auto tiles_of = [](const Block& block, Index features) {
      const Index vectors = block.quads == 0 ? G : block.quads * L::quad_vectors;
      return Groups::of(features, S::tile_rows[vectors]);
    };
    Index tiles = 0;
    L::for_blocks(H, all,
                  [&](const Block& block) { tiles += tiles_of(block, I).count + tiles_of(block, P).count + 1; });
    const Range share = team.share(tiles);
    Index item = 0;
    const auto visit = [&](const Block& block, Index begin, const Groups& groups) {
      for (Index g = 0; g < groups.count; ++g, ++item)
        if (item >= share.begin && item < share.end)
          body(block, begin + groups.first(g), groups.first(g + 1) - groups.first(g));
    };
    L::for_blocks(H, all, [&](const Block& block) {
      visit(block, 0, tiles_of(block, I));
      visit(block, I, tiles_of(block, P));
      visit(block, I + P, Groups{1, 1});
    });
  }

  static Real* panel_of(const Context& k, const Block& block, Index feature) {
    return k.d_panel + L::panel_of(block, k.a.size.I, k.a.size.P) + feature * L::gates_of(block);
  }

  static void clear_panels(const Context& k, const Team& team) {
    for_panel_tiles(k, team, [&](const Block& block, Index first, Index m) {
      L::set_zero(panel_of(k, block, first), m * L::gates_of(block));
    });
  }

  // Many features lie in as many pages: then each tile's are packed for a block of rows, side by side.
  static bool packs_features(const RecurrentSizes& n) { return n.H >= 8 * W && n.I + n.P >= 512; }

  static void pack_features(const Context& k, const Rows& rows, Index r, Index count, const Team& team) {
    const Index I = k.a.size.I;
    const Groups x = Groups::of(I, S::tile_rows[G]), h = Groups::of(k.a.size.P, S::tile_rows[G]);
    const Range share = team.share(x.count + h.count);
    for (Index tile = share.begin; tile < share.end; ++tile) {
      const bool of_x = tile < x.count;
      const Groups& groups = of_x ? x : h;
      const Index g = of_x ? tile : tile - x.count, first = groups.first(g), m = groups.first(g + 1) - first;
      const Real* const* from = of_x ? rows.x + r : rows.h + r;
      Real* to = k.features + ((of_x ? 0 : I) + first) * count;
      for (Index row = 0; row < count; ++row)
        for (Index i = 0; i < m; ++i) *to++ = from[row][first + i];
    }
  }

  // panels += dG^T [x | h_prev | 1]
  static void weight_gradients(const Context& k, Index begin, Index end, const Rows& rows, const Team& team) {
    const Index I = k.a.size.I, P = k.a.size.P, first_row = k.a.schedule.first[begin];
    for_row_blocks(k.a.schedule.first[end] - first_row, [&](Index r, Index count) {
      if (packs_features(k.a.size)) {
        team.barrier();  // the rows before are done with
        pack_features(k, rows, r, count, team);
        team.barrier();
      }
      for_panel_tiles(k, team, [&](const Block& block, Index first, Index m) {
        Real* panel = panel_of(k, block, first);
        const Real* const* features = first < I ? rows.x + r : rows.h + r;
        const Index feature = first < I ? first : first - I;
        const Real* gates = k.gates + G * block.unit * k.a.size.rows;
        // V vectors, `vector` numbers apart, of rows of `row` numbers
        const auto add = [&]<int V>(Index row, Index vector) {
          const Real* from = gates + (first_row + r) * row;
          if (first == I + P) {
            add_column_sums<S, V>(from, vector, row, count, panel, W);
          } else {
            run_outer<S, V>(m, {features, feature, nullptr, from, vector, row, count, panel, V * W, W});
          }
        };
        if (block.quads == 0) {
          if (packs_features(k.a.size) && first < I + P) {
            run_outer<S, G, true>(
                m, {nullptr, 0, k.features + first * count, gates + (first_row + r) * PW, W, PW, count, panel, PW, W});
          } else {
            add.template operator()<G>(PW, W);
          }
        } else if constexpr (L::most_quads == 1) {
          add.template operator()<L::quad_vectors>(QW, W);
        } else {
          with_constant(block.quads, [&]<int Q>() { add.template operator()<Q>(QW, k.a.size.rows * QW); });
        }
      });
    });
  }

  // Of what only staged cells have, summed over the rows of a chunk: the projection's weights, and what the cell has
  // for each unit.
  static void other_gradients(const Context& k, Index begin, Index end, const Rows& rows, const Team& team) {
    const RecurrentBackward<Real>& a = k.a;
    const Index H = a.size.H, P = a.size.P, all = a.schedule.first[end] - a.schedule.first[begin];
    Index item = 0;
    const auto is_mine = [&] { return item++ % team.size == team.index; };
    if (P != H) {
      for_column_groups<S>(H, [&](Index column, Index vectors, Index lanes) {
        with_constant(vectors, [&]<int V>() {
          for_tiles(0, P, S::tile_rows[V], [&](Index first, Index m) {
            if (!is_mine()) return;
            for_row_blocks(all, [&](Index r, Index count) {
              run_outer<S, V>(m, {rows.dh + r, first, nullptr, k.outputs + r * k.stride + column, W, k.stride, count,
                                  a.gradients.weight_hr + first * H + column, H, lanes});
            });
          });
        });
      });
    }
    if (!k.cell.has_unit_params(a.staged)) return;
    for (int e = 0; e < k.cell.unit_params; ++e) {
      const Real* plane = k.planes + e * plane_size(a.size);
      L::for_pieces(H, {0, L::vectors(H)}, [&](Index unit, Index width, Index) {
        if (!is_mine()) return;
        for_row_blocks(all, [&](Index r, Index count) {
          add_column_sums<S, 1>(plane + unit * all + r * width, 0, width, count, k.d_units + e * k.stride + unit,
                                width);
        });
      });
    }
  }

  static void add_units(const Context& k) {
    const RecurrentBackward<Real>& a = k.a;
    if (!k.cell.has_unit_params(a.staged)) return;
    for (int e = 0; e < k.cell.unit_params; ++e) {
      Real* to = k.cell.unit_gradient(a.gradients, e, a.size.H);
      for (Index u = 0; u < a.size.H; ++u) to[u] += k.d_units[e * k.stride + u];
    }
  }

  // adds the panels to the parameters' gradients
  static void add_panels(const Context& k, const Team& team) {
    const RecurrentBackward<Real>& a = k.a;
    const Index I = a.size.I, H = a.size.H, P = a.size.P;
    team.barrier();  // they are shared out in another way than they were made
    Index item = 0;
    L::for_gates(H, [&](const Block& block, Index lane, Index width, int gate, Index unit, Index lanes) {
      if (item++ % team.size != team.index) return;
      const Index row = L::gates_of(block);
      const Real* panel = panel_of(k, block, 0) + lane;
      const auto add = [&](Index of, const Real* from, Index depth, Real* weight, Real* bias) {
        if (of < 0) return;
        const Index first = of * H + unit;
        add_transposed(from, row, depth, width, lanes, weight + first * depth);
        for (Index l = 0; bias && l < lanes; ++l) bias[first + l] += panel[(I + P) * row + l];
      };
      add(k.cell.ih_gate[gate], panel, I, a.gradients.weight_ih, a.gradients.bias_ih);
      add(k.cell.hh_gate[gate], panel + I * row, P, a.gradients.weight_hh, a.gradients.bias_hh);
    });
  }

  // to[l][k] += panel[k][l] for k < n and l < lanes, rows n and `row` numbers apart
  static void add_transposed(const Real* panel, Index row, Index n, Index width, Index lanes, Real* to) {
    for (Index k = 0; k < n; k += W) {
      Vec v[W];
      const Index count = n - k < W ? n - k : W;
      load_transposed<S>(panel + k * row, row, count, width, v);
      for (Index l = 0; l < lanes; ++l) {
        Real* sums = to + l * n + k;
        store_lanes<S>(sums, S::add(load_lanes<S>(sums, count), v[l]), count);
      }
    }
  }
};

// One cell's part of it.
template <class S, class Cell>
struct CellBackward : Layout<S> {
  using L = Layout<S>;
  using B = Backward<S>;
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
