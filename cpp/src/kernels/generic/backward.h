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
  using Vec = typename S::Vec;
  using L::W, L::G, L::PW;
  static constexpr Index least_rows = 384;  // of a chunk

  static Index chunk_steps(const RecurrentSizes& n) {
    if (n.B == 0 || n.T == 0) return 1;
    const Index by_rows = (least_rows + n.B - 1) / n.B, by_size = L::l2_floats / (n.B * L::blocks(n.H) * PW);
    const Index steps = by_rows > by_size ? by_rows : by_size;
    return steps < n.T ? steps : n.T;
  }

  static Index pointers_size(const RecurrentSizes& n) {
    return (3 * chunk_steps(n) * n.B * L::pointer_floats + W - 1) / W * W;
  }

  static Index work_size(const RecurrentSizes& n) {
    const Index HB = L::blocks(n.H);
    return HB * W * (2 * n.B + 1) + HB * (n.I + n.H + 1) * PW + 2 * pointers_size(n);
  }

  // Where the rows of a chunk are; two are in turn, for a thread may be one chunk ahead of another.
  struct Rows {
    const float **x, **h;
    float** dx;
  };

  struct Context {
    const RecurrentBackward& a;
    Index HB;
    float *gates, *cells;    // the tape
    float *zeros, *dc, *dh;  // [HB*W], [HB][B][W], [B][HB*W] by position
    float* d_panel;          // [HB][I+H+1][PW]
    const float *u, *w;      // packed backward
    Rows rows[2];
  };

  static void run(const RecurrentBackward& a) {
    const RecurrentSizes& n = a.size;
    const Index HB = L::blocks(n.H);
    const ColumnGroups groups = ColumnGroups::of(n.H, W);
    const Context k = make_context(a);
    L::set_zero(k.zeros, HB * W);
    parallel(L::team_size_of(n, a.threads, groups.count, 2.0), [&](const Team& team) {
      const Part part = L::part_of(n, a.schedule, team, groups);
      L::read_state(a.dc_n, a.schedule, part, n.H, k.dc, n.B * W);
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

  static Context make_context(const RecurrentBackward& a) {
    const RecurrentSizes& n = a.size;
    const Index HB = L::blocks(n.H);
    float* zeros = a.work;
    float* dc = zeros + HB * W;
    float* dh = dc + HB * n.B * W;
    float* d_panel = dh + n.B * HB * W;
    float* pointers = d_panel + HB * (n.I + n.H + 1) * PW;
    Context k{a,  HB,      a.tape,   a.tape + HB * n.rows * PW,   zeros, dc,
              dh, d_panel, a.packed, a.packed + G * n.H * HB * W, {}};
    const Index most = chunk_steps(n) * n.B;
    for (Rows& rows : k.rows) {
      rows.x = reinterpret_cast<const float**>(pointers);
      rows.h = rows.x + most;
      rows.dx = const_cast<float**>(rows.h + most);
      pointers += pointers_size(n);
    }
    return k;
  }

  // ---- step by step

  // the rows of dG from r on, PW apart, against a packed [G*H, columns]: the full hidden blocks, then the valid lanes
  // of the last
  LSTMX_INLINE void gate_operands(const Context& k, Index r, ProductTile& tile) {
    const Index H = k.a.size.H, full = H / W, block = k.a.size.rows * PW;
    tile.a.segment = block;
    tile.a.depth = PW;
    tile.a.count = full;
    tile.b.segment = W;
    tile.b.depth = H % W;
    tile.b.count = H % W ? G : 0;
    tile.a.row[0] = k.gates + r * PW;
    tile.b.row[0] = k.gates + full * block + r * PW;
  }

  // dh = dG U of step t, for the part's columns and its positions alive then
  static void carry_back(const Context& k, Index t, const Part& part) {
    const Index H = k.a.size.H, stride = k.HB * W, first_row = k.a.schedule.first[t];
    const Index begin = part.positions.begin, end = begin + alive_in(k.a.schedule, t, part.positions);
    const ColumnGroups groups = ColumnGroups::of(H, W);
    for (Index g = 0; g < groups.count; ++g) {
      const Index first = groups.first(g), vectors = groups.first(g + 1) - first;
      if (first < part.blocks.begin || first >= part.blocks.end) continue;
      with_vectors(vectors, [&]<int V>() {
        ProductTile tile;
        tile.panel = k.u + first * W * G * H;
        tile.init = nullptr;
        tile.lanes = W;
        for_tiles(begin, end, S::tile_rows[V], [&](Index p, Index m) {
          gate_operands(k, first_row + p, tile);
          for (Index i = 0; i < m; ++i) tile.c[i] = k.dh + (p + i) * stride + first * W;
          run_product<S, V, PW>(m, tile);
        });
      });
    }
  }

  static void step_back(const Context& k, Index t, const Part& part) {
    const RecurrentBackward& a = k.a;
    const Schedule& s = a.schedule;
    const Index B = a.size.B, H = a.size.H, begin = part.positions.begin;
    const Index end = begin + alive_in(s, t, part.positions);
    if (end == begin) return;
    const bool last = t + 1 == a.size.T;
    if (!last) carry_back(k, t + 1, part);
    const Index carried = last ? begin : begin + alive_in(s, t + 1, part.positions);
    const Index before = t == 0 ? 0 : B + s.first[t - 1];
    for (Index hb = part.blocks.begin; hb < part.blocks.end; ++hb) {
      const Index lanes = L::lanes_of(H, hb);
      for (Index p = begin; p < end; ++p) {
        const Index b = s.order[p];
        Vec dh = S::set(0.0f);
        if (p >= carried) {  // this is the row's last step
          if (a.dh_n) dh = load_lanes<S>(a.dh_n + b * H + hb * W, lanes);
        } else if (!is_reset(s, t + 1, p)) {
          dh = S::load(k.dh + (p * k.HB + hb) * W);
        }
        if (a.dy.data) dh = S::add(dh, load_lanes<S>(a.dy.data + t * a.dy.step + b * a.dy.row + hb * W, lanes));
        const Vec h = load_lanes<S>(a.y.data + t * a.y.step + b * a.y.row + hb * W, lanes);
        const Vec c_prev = S::load(k.cells + (hb * (B + a.size.rows) + before + p) * W);
        float* gates = k.gates + (hb * a.size.rows + s.first[t] + p) * PW;
        float* dc = k.dc + (hb * B + p) * W;
        Vec g[G];
        LSTMX_UNROLL
        for (int j = 0; j < G; ++j) g[j] = S::load(gates + j * W);
        Vec dcv = S::load(dc);
        Cell::backward(g, h, c_prev, dh, dcv);
        S::store(dc, is_reset(s, t, p) ? S::set(0.0f) : dcv);
        LSTMX_UNROLL
        for (int j = 0; j < G; ++j) S::store(gates + j * W, g[j]);
      }
    }
  }

  static void initial_gradients(const Context& k, const Part& part) {
    const RecurrentBackward& a = k.a;
    const Schedule& s = a.schedule;
    const Index H = a.size.H;
    if (a.dh_0 && a.size.T > 0) carry_back(k, 0, part);
    for (Index p = part.positions.begin; p < part.positions.end; ++p) {
      const Index b = s.order[p];
      if (a.dh_0) {
        const float* dh = nullptr;
        if (s.length[p] == 0) {
          dh = a.dh_n ? a.dh_n + b * H : nullptr;
        } else if (!is_reset(s, 0, p)) {
          dh = k.dh + p * k.HB * W;
        }
        L::write_columns(dh, part, H, a.dh_0 + b * H);
      }
      if (!a.dc_0) continue;
      for (Index hb = part.blocks.begin; hb < part.blocks.end; ++hb)
        store_lanes<S>(a.dc_0 + b * H + hb * W, S::load(k.dc + (hb * a.size.B + p) * W), L::lanes_of(H, hb));
    }
  }

  // ---- merged over the rows of a chunk

  static void find_rows(const Context& k, Index begin, Index end, const Rows& rows, const Team& team) {
    const RecurrentBackward& a = k.a;
    const Schedule& s = a.schedule;
    const Range share = team.share(end - begin);
    for (Index t = begin + share.begin; t < begin + share.end; ++t) {
      Index r = s.first[t] - s.first[begin];
      for (Index p = 0; p < s.alive[t]; ++p, ++r) {
        const Index b = s.order[p];
        rows.x[r] = a.x.data + t * a.x.step + b * a.x.row;
        rows.dx[r] = a.dx.data + t * a.dx.step + b * a.dx.row;
        rows.h[r] = is_reset(s, t, p) ? k.zeros
                    : t > 0           ? a.y.data + (t - 1) * a.y.step + b * a.y.row
                    : a.h_0           ? a.h_0 + b * a.size.H
                                      : k.zeros;
      }
    }
  }

  static void clear_padding(const Context& k, const Team& team) {
    const RecurrentBackward& a = k.a;
    const Range share = team.share(a.size.B);
    for (Index p = share.begin; p < share.end; ++p) {
      for (Index t = a.schedule.length[p]; t < a.size.T; ++t) {
        float* row = a.dx.data + t * a.dx.step + a.schedule.order[p] * a.dx.row;
        for (Index i = 0; i < a.size.I; ++i) row[i] = 0.0f;
      }
    }
  }

  // dX = dG W
  static void input_gradients(const Context& k, Index begin, Index end, const Rows& rows, const Team& team) {
    const Index I = k.a.size.I, H = k.a.size.H, first_row = k.a.schedule.first[begin];
    const Range share = team.share(k.a.schedule.first[end] - first_row);
    for_column_groups<S>(I, [&](Index first, Index vectors, Index lanes) {
      with_vectors(vectors, [&]<int V>() {
        ProductTile tile;
        tile.panel = k.w + first * G * H;
        tile.init = nullptr;
        tile.lanes = lanes;
        for_tiles(share.begin, share.end, S::tile_rows[V], [&](Index r, Index m) {
          gate_operands(k, first_row + r, tile);
          for (Index i = 0; i < m; ++i) tile.c[i] = rows.dx[r + i] + first;
          run_product<S, V, PW>(m, tile);
        });
      });
    });
  }

  // Calls body(hb, first feature, features) for this thread's tiles of the panels [HB][I+H+1][PW]; a tile lies within
  // x, within h, or is the bias.
  template <class Body>
  static void for_panel_tiles(const Context& k, const Team& team, const Body& body) {
    const Index I = k.a.size.I, H = k.a.size.H, most = S::tile_rows[G];
    const Index x_tiles = (I + most - 1) / most, tiles = x_tiles + (H + most - 1) / most + 1;
    const Range share = team.share(k.HB * tiles);
    for (Index item = share.begin; item < share.end; ++item) {
      const Index hb = item / tiles, tile = item % tiles;
      if (tile == tiles - 1) {
        body(hb, I + H, Index(1));
      } else if (tile < x_tiles) {
        body(hb, tile * most, I - tile * most < most ? I - tile * most : most);
      } else {
        const Index first = (tile - x_tiles) * most;
        body(hb, I + first, H - first < most ? H - first : most);
      }
    }
  }

  static void clear_panels(const Context& k, const Team& team) {
    const Index features = k.a.size.I + k.a.size.H + 1;
    for_panel_tiles(k, team, [&](Index hb, Index first, Index m) {
      L::set_zero(k.d_panel + (hb * features + first) * PW, m * PW);
    });
  }

  // panels += dG^T [x | h_prev | 1]
  static void weight_gradients(const Context& k, Index begin, Index end, const Rows& rows, const Team& team) {
    const Index I = k.a.size.I, H = k.a.size.H, features = I + H + 1, first_row = k.a.schedule.first[begin];
    for_row_blocks(k.a.schedule.first[end] - first_row, [&](Index r, Index count) {
      for_panel_tiles(k, team, [&](Index hb, Index first, Index m) {
        const float* gates = k.gates + (hb * k.a.size.rows + first_row + r) * PW;
        float* panel = k.d_panel + (hb * features + first) * PW;
        if (first == I + H) {
          add_column_sums<S, G>(gates, PW, count, panel, W);
        } else if (first < I) {
          run_outer<S, G>(m, {rows.x + r, first, gates, PW, count, panel, PW, W});
        } else {
          run_outer<S, G>(m, {rows.h + r, first - I, gates, PW, count, panel, PW, W});
        }
      });
    });
  }

  // adds the panels to the parameters' gradients
  static void add_panels(const Context& k, const Team& team) {
    const RecurrentBackward& a = k.a;
    const Index I = a.size.I, H = a.size.H, features = I + H + 1;
    for_panel_tiles(k, team, [&](Index hb, Index first, Index m) {
      const float* panel = k.d_panel + (hb * features + first) * PW;
      for (int g = 0; g < G; ++g) {
        for (Index l = 0; l < L::lanes_of(H, hb); ++l) {
          const Index row = g * H + hb * W + l;
          const float* from = panel + g * W + l;
          if (first == I + H) {
            if (a.gradients.bias_ih) a.gradients.bias_ih[row] += *from;
            if (a.gradients.bias_hh) a.gradients.bias_hh[row] += *from;
          } else {
            float* to =
                first < I ? a.gradients.weight_ih + row * I + first : a.gradients.weight_hh + row * H + first - I;
            for (Index i = 0; i < m; ++i) to[i] += from[i * PW];
          }
        }
      }
    });
  }
};

}  // namespace
