// The forward pass of a pointwise cell through time.
//
// A step makes, in one register tile, the gates of W hidden units for a few rows, and the cell on them while they are
// in registers. The products with x are made in the same tile, or, where a step has too few rows to fill a tile (short
// batches), beforehand for a chunk of steps at once; the sums are the same bits either way.
#pragma once

namespace {

// One tile of a step: M rows by N hidden blocks (one of the two is 1), G gates each.
struct CellTile {
  Operand a, b;        // x (count 0 where it is in init already) and h
  const float* panel;  // of the first block
  Index panel_block;   // floats from a block's panel to the next
  const float* init;   // PW floats a row: the bias (init_row 0) or the gates so far
  Index init_row, init_block;
  const float* c_in;  // rows W floats apart
  float* c_out;
  Index c_block;
  float* gates;  // rows PW floats apart; training only
  Index gates_block;
  float* y[most_tile_rows];
  Index lanes;  // valid lanes of the last block
};

template <class S, class Cell_>
struct Forward : Layout<S, Cell_> {
  using L = Layout<S, Cell_>;
  using Cell = Cell_;
  using Vec = typename S::Vec;
  using L::W, L::G, L::PW;
  static constexpr Index few_rows = 4;                     // a step of fewer has its products with x made beforehand
  static constexpr Index chunk_floats = L::l2_floats / 2;  // of gates made beforehand

  static bool is_hoisted(const RecurrentSizes& n) { return n.T > 1 && n.rows < few_rows * n.T; }

  static Index chunk_steps(const RecurrentSizes& n) {
    const Index steps = chunk_floats / (n.B * L::blocks(n.H) * PW + 1);
    return steps < 1 ? 1 : steps < n.T ? steps : n.T;
  }

  // a chunk's gates where there is no tape
  static Index chunk_size(const RecurrentSizes& n) {
    return is_hoisted(n) ? chunk_steps(n) * n.B * L::blocks(n.H) * PW : 0;
  }

  static Index pointers_size(const RecurrentSizes& n) { return (3 * n.B * L::pointer_floats + W - 1) / W * W; }

  static Index work_size(const RecurrentSizes& n, int threads) {
    return L::blocks(n.H) * W * (n.B + 1) + chunk_size(n) + threads * pointers_size(n);
  }

  // What one thread needs throughout.
  struct Context {
    RecurrentForward a;
    Part part;
    bool hoisted;        // products with x made beforehand: only where a thread has all positions
    const float* zeros;  // [H]
    float* cells;
    Index cell_block;
    float* gates;  // the tape, or a chunk's
    Index gate_block;
    const float **x, **h;  // [B] by position: rows of the step
    float** y;
  };

  static void run(const RecurrentForward& a) {
    const RecurrentSizes& n = a.size;
    const ColumnGroups groups{L::blocks(n.H), L::blocks(n.H)};
    L::set_zero(a.work, L::blocks(n.H) * W);
    parallel(L::team_size_of(n, a.threads, groups.count, 1.0), [&](const Team& team) {
      if (a.tape) {
        run_part<true>(a, team, groups);
      } else {
        run_part<false>(a, team, groups);
      }
    });
  }

  template <bool training>
  static void run_part(const RecurrentForward& a, const Team& team, const ColumnGroups& groups) {
    const RecurrentSizes& n = a.size;
    const Index HB = L::blocks(n.H);
    float* work = a.work + HB * W;
    Context k{};
    k.part = L::part_of(n, a.schedule, team, groups);
    k.hoisted = is_hoisted(n) && k.part.positions.end - k.part.positions.begin == n.B;
    k.a = a;
    k.zeros = a.work;
    k.cells = training ? a.tape + HB * n.rows * PW : work;
    k.cell_block = (training ? n.B + n.rows : n.B) * W;
    k.gates = training ? a.tape : work + HB * n.B * W;
    k.gate_block = (training ? n.rows : chunk_steps(n) * n.B) * PW;
    float* pointers = work + HB * n.B * W + chunk_size(n) + team.index * pointers_size(n);
    k.x = reinterpret_cast<const float**>(pointers);
    k.h = k.x + n.B;
    k.y = const_cast<float**>(k.h + n.B);

    L::read_state(a.c_0, a.schedule, k.part, n.H, k.cells, k.cell_block);
    const Index steps = k.hoisted ? chunk_steps(n) : n.T;
    for (Index begin = 0; begin < n.T; begin += steps) {
      const Index end = begin + steps < n.T ? begin + steps : n.T;
      if (k.hoisted) project<training>(k, begin, end);
      for (Index t = begin; t < end; ++t) {
        step<training>(k, t, begin);
        if (k.part.meets) team.barrier();
      }
    }
    finish<training>(k);
  }

  // the tape's row of position 0 at step t, counted from the first row of `gates`
  template <bool training>
  LSTMX_INLINE Index gate_row(const Context& k, Index t, Index begin) {
    const Schedule& s = k.a.schedule;
    return training ? s.first[t] : s.first[t] - s.first[begin];
  }

  // gates = bias + W x for the steps [begin, end)
  template <bool training>
  static void project(const Context& k, Index begin, Index end) {
    const RecurrentForward& a = k.a;
    const Schedule& s = a.schedule;
    const Index I = a.size.I, H = a.size.H;
    ProductTile tile;
    tile.a.segment = 0;
    tile.a.depth = I;
    tile.a.count = 1;
    tile.b.count = 0;
    tile.lanes = W;
    for (Index hb = k.part.blocks.begin; hb < k.part.blocks.end; ++hb) {
      tile.init = a.packed + hb * L::panel(I, H);
      tile.panel = tile.init + PW;
      float* gates = k.gates + hb * k.gate_block + gate_row<training>(k, begin, begin) * PW;
      Index m = 0, t = begin, p = k.part.positions.begin;
      const Index rows = s.first[end] - s.first[begin];
      for_tiles(0, rows, S::tile_rows[G], [&](Index, Index count) {
        for (m = 0; m < count; ++m, ++p) {
          if (p == s.alive[t]) ++t, p = 0;
          tile.a.row[m] = a.x.data + t * a.x.step + s.order[p] * a.x.row;
          tile.c[m] = gates;
          gates += PW;
        }
        run_product<S, G>(count, tile);
      });
    }
  }

  template <bool training>
  static void step(const Context& k, Index t, Index begin) {
    const RecurrentForward& a = k.a;
    const Schedule& s = a.schedule;
    const Index I = a.size.I, H = a.size.H, first = k.part.positions.begin;
    const Index count = alive_in(s, t, k.part.positions);
    if (count == 0) return;
    // c before and after the step; in place without a tape
    const Index before = !training ? 0 : t == 0 ? 0 : a.size.B + s.first[t - 1];
    const Index after = !training ? 0 : a.size.B + s.first[t];
    set_rows(k, t, first, first + count, before);

    CellTile tile;
    tile.a.segment = tile.b.segment = 0;
    tile.a.depth = I;
    tile.b.depth = H;
    tile.a.count = k.hoisted ? 0 : 1;
    tile.b.count = 1;
    tile.panel_block = L::panel(I, H);
    tile.init_block = k.hoisted ? k.gate_block : L::panel(I, H);
    tile.init_row = k.hoisted ? PW : 0;
    tile.c_block = k.cell_block;
    tile.gates_block = k.gate_block;
    const Index row = gate_row<training>(k, t, begin);
    const auto place = [&](Index hb, Index p, Index m) {
      const float* packed = a.packed + hb * L::panel(I, H);
      float* gates = k.gates + hb * k.gate_block + (row + p) * PW;
      tile.panel = packed + PW + (k.hoisted ? I * PW : 0);
      tile.init = k.hoisted ? gates : packed;
      if constexpr (training) tile.gates = gates;
      tile.c_in = k.cells + hb * k.cell_block + (before + p) * W;
      tile.c_out = k.cells + hb * k.cell_block + (after + p) * W;
      for (Index i = 0; i < m; ++i) {
        tile.a.row[i] = k.x[p + i];
        tile.b.row[i] = k.h[p + i];
        tile.y[i] = k.y[p + i] + hb * W;
      }
    };
    if (count == 1) {  // several hidden blocks at once, for independent chains
      for_tiles(k.part.blocks.begin, k.part.blocks.end, S::single_row_blocks, [&](Index hb, Index N) {
        place(hb, first, 1);
        tile.lanes = L::lanes_of(H, hb + N - 1);
        run_blocks<training>(N, tile);
      });
      return;
    }
    for (Index hb = k.part.blocks.begin; hb < k.part.blocks.end; ++hb) {
      tile.lanes = L::lanes_of(H, hb);
      for_tiles(first, first + count, S::tile_rows[G], [&](Index p, Index m) {
        place(hb, p, m);
        run_rows<training>(m, tile);
      });
    }
  }

  // where the rows of a step are; resets clear c, and h is read from zeros
  static void set_rows(const Context& k, Index t, Index begin, Index end, Index before) {
    const RecurrentForward& a = k.a;
    for (Index p = begin; p < end; ++p) {
      const Index b = a.schedule.order[p];
      k.x[p] = a.x.data + t * a.x.step + b * a.x.row;
      k.y[p] = a.y.data + t * a.y.step + b * a.y.row;
      k.h[p] = t > 0 ? k.y[p] - a.y.step : a.h_0 ? a.h_0 + b * a.size.H : k.zeros;
    }
    if (a.schedule.resets == nullptr) return;
    for (Index p = begin; p < end; ++p) {
      if (!is_reset(a.schedule, t, p)) continue;
      k.h[p] = k.zeros;
      for (Index hb = k.part.blocks.begin; hb < k.part.blocks.end; ++hb)
        S::store(k.cells + hb * k.cell_block + (before + p) * W, S::set(0.0f));
    }
  }

  // final states, and zeros in y beyond each row's length
  template <bool training>
  static void finish(const Context& k) {
    const RecurrentForward& a = k.a;
    const Schedule& s = a.schedule;
    const Index H = a.size.H;
    for (Index p = k.part.positions.begin; p < k.part.positions.end; ++p) {
      const Index b = s.order[p], length = s.length[p];
      float* y = a.y.data + b * a.y.row;
      const float* h = length > 0 ? y + (length - 1) * a.y.step : a.h_0 ? a.h_0 + b * H : k.zeros;
      L::write_columns(h, k.part, H, a.h_n + b * H);
      for (Index t = length; t < a.size.T; ++t) L::write_columns(nullptr, k.part, H, y + t * a.y.step);
      const Index last = training && length > 0 ? a.size.B + s.first[length - 1] : 0;
      for (Index hb = k.part.blocks.begin; hb < k.part.blocks.end; ++hb) {
        const Vec c = S::load(k.cells + hb * k.cell_block + (last + p) * W);
        store_lanes<S>(a.c_n + b * H + hb * W, c, L::lanes_of(H, hb));
      }
    }
  }

  // ---- the tile

  template <int M, int N, bool training>
  __attribute__((noinline)) static void cell_tile(const CellTile& t) {
    Vec gate[M * N][G];
    LSTMX_UNROLL
    for (int m = 0; m < M; ++m) {
      LSTMX_UNROLL
      for (int n = 0; n < N; ++n) {
        LSTMX_UNROLL
        for (int g = 0; g < G; ++g) gate[m * N + n][g] = S::load(t.init + m * t.init_row + n * t.init_block + g * W);
      }
    }
    if constexpr (N == 1) {
      multiply_operand<S, M, G>(gate, t.b, multiply_operand<S, M, G>(gate, t.a, t.panel));
    } else {
      const float* panel = t.panel;
      if (t.a.count) panel = multiply_blocks<N>(gate, t.a.row[0], t.a.depth, panel, t.panel_block);
      multiply_blocks<N>(gate, t.b.row[0], t.b.depth, panel, t.panel_block);
    }
    apply_cell<M, N, 0, training>(gate, t);
  }

  // one row by N panels
  template <int N>
  LSTMX_INLINE const float* multiply_blocks(Vec (&gate)[N][G], const float* a, Index depth, const float* panel,
                                            Index panel_block) {
#pragma GCC unroll 2
    for (Index k = 0; k < depth; ++k, panel += PW) {
      const Vec s = S::set(a[k]);
      LSTMX_UNROLL
      for (int n = 0; n < N; ++n) {
        LSTMX_UNROLL
        for (int g = 0; g < G; ++g) gate[n][g] = S::fma(s, S::load(panel + n * panel_block + g * W), gate[n][g]);
      }
    }
    return panel;
  }

  // the cell for [first, M * N), a few at a time so that their activations interleave
  template <int M, int N, int first, bool training>
  LSTMX_INLINE void apply_cell(Vec (&gate)[M * N][G], const CellTile& t) {
    if constexpr (first < M * N) {
      constexpr int left = M * N - first, most = S::cell_rows;
      constexpr int R = left < most ? left : left % most == 1 && most > 2 ? most - 1 : most;
      Vec g[R][G], c[R], h[R];
      LSTMX_UNROLL
      for (int r = 0; r < R; ++r) {
        const int m = (first + r) / N, n = (first + r) % N;
        LSTMX_UNROLL
        for (int j = 0; j < G; ++j) g[r][j] = gate[first + r][j];
        c[r] = S::load(t.c_in + m * W + n * t.c_block);
      }
      Cell::template forward<R>(g, c, h);
      LSTMX_UNROLL
      for (int r = 0; r < R; ++r) {
        const int m = (first + r) / N, n = (first + r) % N;
        S::store(t.c_out + m * W + n * t.c_block, c[r]);
        store_lanes<S>(t.y[m] + n * W, h[r], n == N - 1 ? t.lanes : W);
        if constexpr (training) {
          LSTMX_UNROLL
          for (int j = 0; j < G; ++j) S::store(t.gates + m * PW + n * t.gates_block + j * W, g[r][j]);
        }
      }
      apply_cell<M, N, first + R, training>(gate, t);
    }
  }

  template <bool training, int M = S::tile_rows[G]>
  LSTMX_INLINE void run_rows(Index rows, const CellTile& t) {
    if (rows == M) return cell_tile<M, 1, training>(t);
    if constexpr (M > 1) run_rows<training, M - 1>(rows, t);
  }

  template <bool training, int N = S::single_row_blocks>
  LSTMX_INLINE void run_blocks(Index blocks, const CellTile& t) {
    if (blocks == N) return cell_tile<1, N, training>(t);
    if constexpr (N > 1) run_blocks<training, N - 1>(blocks, t);
  }
};

}  // namespace
