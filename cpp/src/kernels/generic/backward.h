// The backward pass of a pointwise cell through time, the mirror of forward.h.
//
// Only the carry dh = dG U runs step by step. Time is cut into chunks, from the end: when a chunk's gates have become
// their gradients, they are still in L2 for the products merged over its rows, dX = dG W (split over rows) and dW =
// dG^T x, dU = dG^T h (split over tiles of the result). These are summed in the layout of the packed forward weights
// and added to the parameters' gradients at the end.
#pragma once

namespace {

template <class S, class Cell_>
struct Backward : Layout<S, Cell_> {
  using L = Layout<S, Cell_>;
  using Cell = Cell_;
  using Real = typename S::Real;
  using Vec = typename S::Vec;
  using L::W, L::G, L::PW, L::QW, L::R;
  static constexpr Index least_rows = 384;                   // of a chunk
  static constexpr Index panel_scalars = L::l2_scalars / 4;  // of weights that are used for all rows of a product

  static Index chunk_steps(const RecurrentSizes& n) {
    if (n.B == 0 || n.T == 0) return 1;
    const Index by_rows = (least_rows + n.B - 1) / n.B, by_size = L::l2_scalars / (n.B * G * L::padded(n.H));
    const Index steps = by_rows > by_size ? by_rows : by_size;
    return steps < n.T ? steps : n.T;
  }

  static Index pointers_size(const RecurrentSizes& n) {
    return (3 * chunk_steps(n) * n.B * L::pointer_scalars + W - 1) / W * W;
  }

  static Index work_size(const RecurrentSizes& n) {
    const Index stride = L::vectors(n.H) * W;
    return stride * (2 * n.B + 1) + G * stride * L::panel_rows(n.I, n.H) + 2 * pointers_size(n) +
           (packs_features(n) ? row_block * (n.I + n.H) : 0);
  }

  // Where the rows of a chunk are; two are in turn, for a thread may be one chunk ahead of another.
  struct Rows {
    const Real **x, **h;
    Real** dx;
  };

  struct Context {
    const RecurrentBackward<Real>& a;
    Index stride;           // H in whole vectors
    Real *gates, *cells;    // the tape
    Real *zeros, *dc, *dh;  // [stride], for each block [B][units], [B][stride] by position
    Real* d_panel;          // for each block [I+H+1][gates of the block]: x, h, bias
    const Real *u, *w;      // packed backward
    Real* features;         // of a block of rows, packed
    Rows rows[2];
  };

  static void run(const RecurrentBackward<Real>& a) {
    const RecurrentSizes& n = a.size;
    const Groups groups = Groups::of_columns(n.H, W);
    const Context k = make_context(a);
    L::set_zero(k.zeros, k.stride);
    parallel(L::team_size_of(n, a.threads, groups.count, 2.0), [&](const Team& team) {
      const Part part = L::part_of(n, a.schedule, team, groups);
      L::read_state(a.dc_n, a.schedule, part, n.H, k.dc, n.B);
      clear_panels(k, team);
      if (a.dx.data) clear_padding(k, team);
      const Index steps = chunk_steps(n);
      int turn = 0;
      for (Index end = n.T; end > 0; turn ^= 1) {
        const Index begin = end > steps ? end - steps : 0;
        for (Index t = end - 1; t >= begin; --t) {
          step_back(k, t, part);
          if (part.meets) team.barrier();
        }
        find_rows(k, begin, end, k.rows[turn], team);
        team.barrier();
        if (a.dx.data) input_gradients(k, begin, end, k.rows[turn], team);
        weight_gradients(k, begin, end, k.rows[turn], team);
        end = begin;
      }
      initial_gradients(k, part);
      add_panels(k, team);
    });
  }

  static Context make_context(const RecurrentBackward<Real>& a) {
    const RecurrentSizes& n = a.size;
    const Index stride = L::vectors(n.H) * W;
    Real* zeros = a.work;
    Real* dc = zeros + stride;
    Real* dh = dc + stride * n.B;
    Real* d_panel = dh + stride * n.B;
    Real* pointers = d_panel + G * stride * L::panel_rows(n.I, n.H);
    Real* cells = a.tape + G * L::padded(n.H) * n.rows;
    Context k{a, stride, a.tape, cells, zeros, dc, dh, d_panel, a.packed, a.packed + G * n.H * stride, nullptr, {}};
    const Index most = chunk_steps(n) * n.B;
    for (Rows& rows : k.rows) {
      rows.x = reinterpret_cast<const Real**>(pointers);
      rows.h = rows.x + most;
      rows.dx = const_cast<Real**>(rows.h + most);
      pointers += pointers_size(n);
    }
    k.features = pointers;
    return k;
  }

  // ---- step by step

  // C rows = dG rows * a packed [G*H, columns], for the rows [begin, end) of the tape: body(row, rows, tile) says where
  // C is. Of weights that do not stay in L2 with what else is there, a stretch of k is used for all rows before the
  // next.
  template <int V, class Body>
  static void gate_product(const Context& k, const Real* panel, Index begin, Index end, ProductTile<Real>& tile,
                           const Body& body) {
    const Index wide = k.a.size.H / W, most = panel_scalars / (PW * V * W);
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
    const Index H = k.a.size.H, first_row = k.a.schedule.first[t];
    const Index begin = first_row + part.positions.begin, end = begin + alive_in(k.a.schedule, t, part.positions);
    const Groups groups = Groups::of_columns(H, W);
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
  }

  static void step_back(const Context& k, Index t, const Part& part) {
    const RecurrentBackward<Real>& a = k.a;
    const Schedule& s = a.schedule;
    const Index B = a.size.B, H = a.size.H, begin = part.positions.begin;
    const Index end = begin + alive_in(s, t, part.positions);
    if (end == begin) return;
    const bool last = t + 1 == a.size.T;
    if (!last) carry_back(k, t + 1, part);
    const Index carried = last ? begin : begin + alive_in(s, t + 1, part.positions);
    const Index before = t == 0 ? 0 : B + s.first[t - 1];
    // where a row's dh comes from: the step after, or, at its last step, the final state's gradient
    const auto carried_dh = [&](Index p) -> const Real* {
      if (p >= carried) return a.dh_n ? a.dh_n + s.order[p] * H : k.zeros;
      return is_reset(s, t + 1, p) ? k.zeros : k.dh + p * k.stride;
    };
    const auto given_dy = [&](Index p) {
      return a.dy.data ? a.dy.data + t * a.dy.step + s.order[p] * a.dy.row : k.zeros;
    };
    const auto output = [&](Index p) { return a.y.data + t * a.y.step + s.order[p] * a.y.row; };
    L::for_blocks(H, part.vectors, [&](const Block& block) {
      Real* gates = k.gates + G * block.unit * a.size.rows;
      const Real* cells = k.cells + block.unit * (B + a.size.rows);
      Real* dcs = k.dc + block.unit * B;
      if (block.quads == 0) {
        for (Index p = begin; p < end; ++p) {
          const Vec dh = S::add(S::load(carried_dh(p) + block.unit), S::load(given_dy(p) + block.unit));
          Vec dc = S::load(dcs + p * W);
          cell_back<false>(gates + (s.first[t] + p) * PW, W, S::load(output(p) + block.unit),
                           S::load(cells + (before + p) * W), dh, dc);
          S::store(dcs + p * W, is_reset(s, t, p) ? S::set(0) : dc);
        }
        return;
      }
      for (Index p = begin; p < end; p += R) {
        const Index rows = end - p < R ? end - p : R;
        QuadRows from;
        for (Index r = 0; r < R; ++r) {  // a row more than there are reads zeros
          from.dh[r] = r < rows ? carried_dh(p + r) : k.zeros;
          from.dy[r] = r < rows ? given_dy(p + r) : k.zeros;
          from.h[r] = r < rows ? output(p + r) : k.zeros;
        }
        for (Index q = 0; q < block.quads; ++q) {
          const Index unit = block.unit + q * 4, lanes = H - unit < 4 ? H - unit : 4;
          Real* quad_gates = gates + q * a.size.rows * QW + (s.first[t] + p) * QW;
          const Real* c_prev = cells + q * (B + a.size.rows) * 4 + (before + p) * 4;
          Real* dc = dcs + q * B * 4 + p * 4;
          if (rows == R) {
            quads_back(quad_gates, W, from, unit, lanes, c_prev, dc);
          } else {
            quads_back(quad_gates, rows * 4, from, unit, lanes, c_prev, dc);
          }
          if (s.resets == nullptr) continue;
          for (Index r = 0; r < rows; ++r)
            if (is_reset(s, t, p + r)) L::set_zero(dc + r * 4, 4);
        }
      }
    });
  }

  // Where R rows are read.
  struct QuadRows {
    const Real *dh[R], *dy[R], *h[R];
  };

  // a quad of some rows, which are `together` units
  LSTMX_INLINE void quads_back(Real* gates, Index together, const QuadRows& from, Index unit, Index lanes,
                               const Real* c_prev, Real* dc) {
    const Vec dh = S::add(S::load_fours(from.dh, unit, lanes), S::load_fours(from.dy, unit, lanes));
    Vec d = load_lanes<S>(dc, together);
    cell_back<true>(gates, together, S::load_fours(from.h, unit, lanes), load_lanes<S>(c_prev, together), dh, d);
    store_lanes<S>(dc, d, together);
  }

  // `together` units of gates, by gate, become their gradients, of quads by row; dc as in Cell::backward
  template <bool quads>
  LSTMX_INLINE void cell_back(Real* gates, Index together, Vec h, Vec c_prev, Vec dh, Vec& dc) {
    Vec g[G];
    LSTMX_UNROLL
    for (int j = 0; j < G; ++j) g[j] = load_lanes<S>(gates + j * together, together);
    Cell::backward(g, h, c_prev, dh, dc);
    if constexpr (quads) S::quads_of_gates(g);
    LSTMX_UNROLL
    for (int j = 0; j < G; ++j)
      if (j * W < G * together) S::store(gates + j * W, g[j]);
  }

  static void initial_gradients(const Context& k, const Part& part) {
    const RecurrentBackward<Real>& a = k.a;
    const Schedule& s = a.schedule;
    const Index H = a.size.H;
    if (a.dh_0 && a.size.T > 0) carry_back(k, 0, part);
    for (Index p = part.positions.begin; p < part.positions.end; ++p) {
      const Index b = s.order[p];
      if (a.dh_0) {
        const Real* dh = nullptr;
        if (s.length[p] == 0) {
          dh = a.dh_n ? a.dh_n + b * H : nullptr;
        } else if (!is_reset(s, 0, p)) {
          dh = k.dh + p * k.stride;
        }
        L::write_columns(dh, part, H, a.dh_0 + b * H);
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
      set_pointers(h, t > 0 ? a.y.row : a.h_0 ? a.size.H : 0, s.order, alive, rows.h + r);
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
        for (Index i = 0; i < a.size.I; ++i) row[i] = 0;
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
    const Index I = k.a.size.I, H = k.a.size.H;
    const Range all{0, L::vectors(H)};
    const auto tiles_of = [](const Block& block, Index features) {
      const Index vectors = block.quads == 0 ? G : block.quads * L::quad_vectors;
      return Groups::of(features, S::tile_rows[vectors]);
    };
    Index tiles = 0;
    L::for_blocks(H, all,
                  [&](const Block& block) { tiles += tiles_of(block, I).count + tiles_of(block, H).count + 1; });
    const Range share = team.share(tiles);
    Index item = 0;
    const auto visit = [&](const Block& block, Index begin, const Groups& groups) {
      for (Index g = 0; g < groups.count; ++g, ++item)
        if (item >= share.begin && item < share.end)
          body(block, begin + groups.first(g), groups.first(g + 1) - groups.first(g));
    };
    L::for_blocks(H, all, [&](const Block& block) {
      visit(block, 0, tiles_of(block, I));
      visit(block, I, tiles_of(block, H));
      visit(block, I + H, Groups{1, 1});
    });
  }

  static Real* panel_of(const Context& k, const Block& block, Index feature) {
    return k.d_panel + L::panel_of(block, k.a.size.I, k.a.size.H) + feature * L::gates_of(block);
  }

  static void clear_panels(const Context& k, const Team& team) {
    for_panel_tiles(k, team, [&](const Block& block, Index first, Index m) {
      L::set_zero(panel_of(k, block, first), m * L::gates_of(block));
    });
  }

  // Many features lie in as many pages: then each tile's are packed for a block of rows, side by side.
  static bool packs_features(const RecurrentSizes& n) { return n.H >= 8 * W && n.I + n.H >= 512; }

  static void pack_features(const Context& k, const Rows& rows, Index r, Index count, const Team& team) {
    const Index I = k.a.size.I, H = k.a.size.H;
    const Groups x = Groups::of(I, S::tile_rows[G]), h = Groups::of(H, S::tile_rows[G]);
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
    const Index I = k.a.size.I, H = k.a.size.H, first_row = k.a.schedule.first[begin];
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
        // V vectors, `vector` scalars apart, of rows of `row` scalars
        const auto add = [&]<int V>(Index row, Index vector) {
          const Real* from = gates + (first_row + r) * row;
          if (first == I + H) {
            add_column_sums<S, V>(from, vector, row, count, panel, W);
          } else {
            run_outer<S, V>(m, {features, feature, nullptr, from, vector, row, count, panel, V * W, W});
          }
        };
        if (block.quads == 0) {
          if (packs_features(k.a.size) && first < I + H) {
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

  // adds the panels to the parameters' gradients
  static void add_panels(const Context& k, const Team& team) {
    const RecurrentBackward<Real>& a = k.a;
    const Index I = a.size.I, H = a.size.H;
    team.barrier();  // they are shared out in another way than they were made
    Index item = 0;
    L::for_gates(H, [&](const Block& block, Index lane, Index width, Index first, Index lanes) {
      if (item++ % team.size != team.index) return;
      const Index row = L::gates_of(block);
      const Real* panel = panel_of(k, block, 0) + lane;
      add_transposed(panel, row, I, width, lanes, a.gradients.weight_ih + first * I);
      add_transposed(panel + I * row, row, H, width, lanes, a.gradients.weight_hh + first * H);
      for (Index l = 0; l < lanes; ++l) {
        const Real sum = panel[(I + H) * row + l];
        if (a.gradients.bias_ih) a.gradients.bias_ih[first + l] += sum;
        if (a.gradients.bias_hh) a.gradients.bias_hh[first + l] += sum;
      }
    });
  }

  // to[l][k] += panel[k][l] for k < n and l < lanes, rows n and `row` scalars apart
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

}  // namespace
