// What the backward pass does for all rows of a chunk of steps at once, whose gates have become their gradients and are
// still in L2: dX = dG W (split over rows), dW = dG^T x, dU = dG^T h, and what staged cells have besides (split over
// tiles of the result). dW, dU and the bias's are summed in the layout of the packed forward weights and added to the
// parameters' gradients at the end. backward.h has the steps.
#pragma once

namespace {

template <class S>
struct BackwardFrame : Layout<S> {
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

  // The gradients of both gains and of the bias, as gates are, of layer normalization by group of R positions
  // [groups][3]
  static Index gain_groups(const RecurrentSizes& n) { return n.by_batch ? 1 : L::row_groups(n); }
  static Index gain_size(const RecurrentSizes& n) { return G * L::padded(n.H); }

  // but for what an engine needs (tile_backward.h)
  static Index work_size(const CellTraits<S>& cell, const RecurrentSizes& n) {
    const Index stride = L::vectors(n.H > n.P ? n.H : n.P) * W;
    Index size = stride * (2 * n.B + 1) + G * L::vectors(n.H) * W * L::panel_rows(n.I, n.P) + 2 * pointers_size(n) +
                 (packs_features(n) ? row_block * (n.I + n.P) : 0);
    if (cell.staged) size += stride * n.B + cell.unit_params * (stride + plane_size(n));
    if (n.P != n.H) size += stride * n.B + 2 * (chunk_rows(n) * stride);
    if (n.normalized)
      size += 2 * (stride + G) * n.B + gain_groups(n) * (3 * gain_size(n) + 2 * stride) + G * (n.I + n.P);
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
  struct CellSteps {
    CellBack back;
    CellBack seen_back;  // of a cell that normalizes, before: c normalized and the gradient by it; or null
  };

  struct Context {
    RecurrentBackward<Real> a;
    const CellTraits<S>& cell;
    CellSteps steps;

    Context(const RecurrentBackward<Real>& args, const CellTraits<S>& traits, const CellSteps& of_cell)
        : a(args), cell(traits), steps(of_cell) {}

    Real* tiles;              // for an engine
    Index stride;             // H or P in whole vectors
    Real *gates, *cells;      // the tape
    Real *gates_x, *gates_h;  // what becomes the gradients by the products with x and with h: gates, or the products
    typename L::Moments moments;
    const Real* masked;     // the tape's, by row [P]; or null
    bool far;               // whether the tape is too large to have stayed in L2
    Real *zeros, *dc, *dh;  // [stride], for each block [B][units], [B][stride] by position
    Real* d_panel;          // for each block [I+P+1][gates of the block]: x, h, bias
    const Real *u, *w;      // packed backward
    const Real *unit_params, *projection;
    Real* features;          // of a block of rows, packed
    Real* kept_dh;           // [B][stride]: of h before, other than through weight_hh
    Real *d_units, *planes;  // [unit_params][stride], [unit_params][plane_size]
    Index plane_size;
    Real *d_outputs = nullptr, *dh_rows = nullptr,
         *outputs = nullptr;  // of a projection: [B][stride], by row of a chunk [stride]
    // of normalization: c normalized and the gradient by it, [B][stride]; for gates_back [B][2][G]; the gradients of
    // the gains, and of c's gain and bias by group [2][stride]; the means over units of the weights' gradients [G][I +
    // P]
    Real *seen, *d_seen, *along, *d_gains, *d_seen_params, *d_means;
    const Real* values;  // the tape's, of h's function
    const Real* gains[2];
    Rows rows[2];
  };

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

  // `tiles`: how much of the work is for an engine
  static Context make_context(const RecurrentBackward<Real>& a, const CellTraits<S>& cell, const CellSteps& steps,
                              Index tiles) {
    const RecurrentSizes& n = a.size;
    Context k(a, cell, steps);
    k.tiles = a.work;
    k.stride = L::vectors(n.H > n.P ? n.H : n.P) * W;
    Real* next = a.work + tiles;
    const auto take = [&next](Index size) {
      Real* taken = next;
      next += size;
      return taken;
    };
    k.gates = a.tape;
    k.cells = a.tape + L::tape_gates(n);
    k.far = L::tape_size(n) > L::l2_size;
    k.masked = n.masked ? k.cells + L::tape_cells(n) : nullptr;
    k.zeros = take(k.stride);
    k.dc = take(k.stride * n.B);
    k.dh = take(k.stride * n.B);
    k.d_panel = take(G * L::vectors(n.H) * W * L::panel_rows(n.I, n.P));
    k.u = a.packed;
    k.w = a.packed + G * n.H * L::vectors(n.P) * W;
    k.unit_params = a.packed + L::backward_panels(n.I, n.H, n.P);
    k.gains[0] = k.unit_params + L::unit_params_size(cell, n.H) + PW * L::pieces(n.H);
    k.gains[1] = k.gains[0] + PW * L::pieces(n.H);
    k.projection = k.unit_params + L::params_size(cell, n.H);
    k.gates_x = k.gates_h = k.gates;
    if (n.normalized) {
      k.gates_x = L::normalized_of(n, a.tape);
      k.gates_h = k.gates_x + L::tape_gates(n);
      k.moments = L::moments_of(n, n.rows, k.gates_h + L::tape_gates(n));
      k.values = k.moments.first + L::moments_size(n, n.T, n.rows);
    }
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
      k.plane_size = plane_size(n);
      k.planes = take(cell.unit_params * k.plane_size);
    }
    if (n.P != n.H) {
      k.d_outputs = take(k.stride * n.B);
      k.dh_rows = take(most * k.stride);
      k.outputs = take(most * k.stride);
    }
    if (n.normalized) {
      k.seen = take(k.stride * n.B);
      k.d_seen = take(k.stride * n.B);
      k.along = take(2 * G * n.B);
      k.d_gains = take(gain_groups(n) * 3 * gain_size(n));
      k.d_seen_params = take(gain_groups(n) * 2 * k.stride);
      k.d_means = take(G * (n.I + n.P));
    }
    return k;
  }

  // C rows = dG rows * a packed [G*H, V vectors X], for the rows [begin, end) of the tape: body(row, rows, tile) says
  // where C is. Of weights that do not stay in L2 with what else is there, a stretch of k is used for all rows before
  // the next.
  template <class X, int V, class Body>
  static void gate_product(const Context& k, const Real* gates, const Real* panel, Index begin, Index end,
                           ProductTile<Real>& tile, const Body& body) {
    const Index wide = k.a.size.H / W, width = V * X::width, most = panel_limit / (PW * width);
    const Index count = wide > most + most / 2 ? (wide + most - 1) / most : 1;
    const Groups stretches{wide, count};
    tile.init = nullptr;
    tile.c_vector = X::width;
    for (Index i = 0; i < count; ++i) {
      const Index first = stretches.first(i);
      tile.goes_on = i > 0;
      tile.panel = panel + first * PW * width;
      for_tiles(begin, end, X::tile_rows[V], [&](Index r, Index m) {
        gate_operands(k, gates, r, first, stretches.first(i + 1), tile);
        body(r, m);
        run_product<X, V, X::tile_rows[V], PW, QW, QW>(m, tile);
      });
    }
  }

  // the rows of dG from r on: the wide blocks [first, last), and after the last of all the whole quads, then the valid
  // lanes of the last quad
  LSTMX_INLINE void gate_operands(const Context& k, const Real* gates, Index r, Index first, Index last,
                                  ProductTile<Real>& tile) {
    const Index H = k.a.size.H, wide = H / W, quads = H % W / 4, rows = k.a.size.rows;
    Operand<Real>& blocks = tile.operand[0];
    blocks.segment = rows * PW;
    blocks.depth = PW;
    blocks.count = last - first;
    blocks.row[0] = gates + first * rows * PW + r * PW;
    Operand<Real>& whole = tile.operand[1];
    whole.segment = rows * QW;
    whole.depth = QW;
    whole.count = last < wide ? 0 : quads;
    whole.row[0] = gates + wide * rows * PW + r * QW;
    Operand<Real>& rest = tile.operand[2];
    rest.segment = 4;
    rest.depth = H % 4;
    rest.count = last < wide || H % 4 == 0 ? 0 : G;
    rest.row[0] = whole.row[0] + quads * rows * QW;
  }

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
    const Index first_row = k.a.schedule.first[begin];
    const Range share = team.share(k.a.schedule.first[end] - first_row);
    input_rows(k, {first_row + share.begin, first_row + share.end}, [&](Index r) { return rows.dx[r - first_row]; });
  }

  // of the rows [begin, end) of the tape; dx(row): where it goes
  template <class Dx>
  static void input_rows(const Context& k, const Range& range, const Dx& dx) {
    const Index I = k.a.size.I, H = k.a.size.H;
    for_panels<S>(I, [&]<class X>(Index first, Index vectors, Index lanes) {
      with_vectors<X>(vectors, [&]<int V>() {
        ProductTile<Real> tile;
        tile.lanes = lanes;
        gate_product<X, V>(k, k.gates_x, k.w + first * G * H, range.begin, range.end, tile, [&](Index r, Index m) {
          for (Index i = 0; i < m; ++i) tile.c[i] = dx(r + i) + first;
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
        if (first == I + P && k.a.size.normalized) return;  // they come with the gains'
        Real* panel = panel_of(k, block, first);
        const Real* const* features = first < I ? rows.x + r : rows.h + r;
        const Index feature = first < I ? first : first - I;
        const Real* all = first < I ? k.gates_x : first < I + P ? k.gates_h : k.gates;
        const Real* gates = all + G * block.unit * k.a.size.rows;
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
    for (int e = 0; e < k.cell.unit_params; ++e) {
      if (k.cell.unit_gradient(a.gradients, e, H) == nullptr) continue;
      const Real* plane = k.planes + e * k.plane_size;
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
    for (int e = 0; e < k.cell.unit_params; ++e) {
      Real* to = k.cell.unit_gradient(a.gradients, e, a.size.H);
      for (Index u = 0; to && u < a.size.H; ++u) to[u] += k.d_units[e * k.stride + u];
    }
  }

  static void add_gains(const Context& k) {
    const RecurrentSizes& n = k.a.size;
    Real* to[3] = {k.a.gradients.gain_ih, k.a.gradients.gain_hh, k.a.gradients.bias_ih};
    L::for_gates(n.H, [&](const Block& block, Index lane, Index, int gate, Index unit, Index lanes) {
      for (int i = 0; i < 3; ++i) {
        Vec sum = S::set(0);
        for (Index group = 0; group < gain_groups(n); ++group) {
          const Real* more = k.d_gains + (3 * group + i) * gain_size(n) + G * block.unit + lane;
          sum = S::add(sum, load_lanes<S>(more, lanes));
        }
        const Index at = gate * n.H + unit;
        const auto add = [&](Real* total) {
          if (total) store_lanes<S>(total + at, S::add(load_lanes<S>(total + at, lanes), sum), lanes);
        };
        add(to[i]);
        if (i == 2) add(k.a.gradients.bias_hh);
      }
    });
  }

  static void add_seen_params(const Context& k) {
    Real* to[2] = {k.a.gradients.gain_c, k.a.gradients.bias_c};
    for (Index i = 0; i < 2 * gain_groups(k.a.size); ++i) {
      for (Index u = 0; u < k.a.size.H; ++u) to[i % 2][u] += k.d_seen_params[i * k.stride + u];
    }
  }

  // the means over units of the weights' gradients, which those of weights that were packed without theirs do not have
  static void find_means(const Context& k, const Team& team) {
    const Index H = k.a.size.H, features = k.a.size.I + k.a.size.P;
    const Range share = team.share(features);
    for (Index f = share.begin; f < share.end; ++f) {
      Vec sums[G];
      for (Vec& sum : sums) sum = S::set(0);
      L::for_gates(H, [&](const Block& block, Index lane, Index, int gate, Index, Index lanes) {
        sums[gate] = S::add(sums[gate], load_lanes<S>(panel_of(k, block, f) + lane, lanes));
      });
      for (int gate = 0; gate < G; ++gate) {
        Real of_lanes[W], sum = 0;
        S::store(of_lanes, sums[gate]);
        for (Real one : of_lanes) sum += one;
        k.d_means[gate * features + f] = sum / static_cast<Real>(H);
      }
    }
    team.barrier();
  }

  // adds the panels to the parameters' gradients
  static void add_panels(const Context& k, const Team& team) {
    const RecurrentBackward<Real>& a = k.a;
    const Index I = a.size.I, H = a.size.H, P = a.size.P;
    team.barrier();  // they are shared out in another way than they were made
    const bool centred = a.size.normalized && !a.size.by_batch;
    if (centred) find_means(k, team);
    Index item = 0;
    L::for_gates(H, [&](const Block& block, Index lane, Index width, int gate, Index unit, Index lanes) {
      if (item++ % team.size != team.index) return;
      const Index row = L::gates_of(block);
      const Real* panel = panel_of(k, block, 0) + lane;
      const auto add = [&](Index of, Index begin, Index depth, Real* weight, Real* bias) {
        if (of < 0) return;
        const Index first = of * H + unit;
        add_transposed(panel + begin * row, row, depth, width, lanes, weight + first * depth,
                       centred ? k.d_means + gate * (I + P) + begin : nullptr);
        for (Index l = 0; bias && l < lanes; ++l) bias[first + l] += panel[(I + P) * row + l];
      };
      add(k.cell.ih_gate[gate], 0, I, a.gradients.weight_ih, a.gradients.bias_ih);
      add(k.cell.hh_gate[gate], I, P, a.gradients.weight_hh, a.gradients.bias_hh);
    });
  }

  // to[l][k] += panel[k][l] for k < n and l < lanes, rows n and `row` numbers apart; less mean[k], if there is one
  static void add_transposed(const Real* panel, Index row, Index n, Index width, Index lanes, Real* to,
                             const Real* mean) {
    for (Index k = 0; k < n; k += W) {
      Vec v[W];
      const Index count = n - k < W ? n - k : W;
      load_transposed<S>(panel + k * row, row, count, width, v);
      for (Index l = 0; l < lanes; ++l) {
        Real* sums = to + l * n + k;
        const Vec more = mean ? S::sub(v[l], load_lanes<S>(mean + k, count)) : v[l];
        store_lanes<S>(sums, S::add(load_lanes<S>(sums, count), more), count);
      }
    }
  }
};

}  // namespace
