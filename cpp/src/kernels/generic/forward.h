// The forward pass of a pointwise cell through time.
//
// A step makes, in one register tile, the gates of a block of hidden units for a few rows, and the cell on them while
// they are in registers. The products with x are made in the same tile, or, where a step has too few rows to fill a
// tile (short batches), beforehand for a chunk of steps at once; the sums are the same bits either way.
#pragma once

namespace {

// One tile of a step: M rows by N wide blocks (one of the two is 1), or M rows by one narrow block.
template <class Real>
struct CellTile {
  Operand<Real> a, b;  // x (count 0 where it is in init already) and h
  const Real* panel;   // of the first block
  Index panel_block;   // scalars from a block's panel to the next
  const Real* init;    // gates: the bias (init_row 0) or the gates so far
  Index init_row, init_block;
  const Real* c_in;  // by row, W or 4 scalars
  Real* c_out;
  Index c_block;
  Real* gates;  // by row, PW or QW scalars; training only
  Index gates_block;
  Real* y[most_tile_rows];
  Index lanes;  // valid units of a narrow block
};

template <class S, class Cell_>
struct Forward : Layout<S, Cell_> {
  using L = Layout<S, Cell_>;
  using Cell = Cell_;
  using Real = typename S::Real;
  using Vec = typename S::Vec;
  using L::W, L::G, L::PW, L::QW, L::R;
  static constexpr Index few_rows = 4;                       // a step of fewer has its products with x made beforehand
  static constexpr Index chunk_scalars = L::l2_scalars / 2;  // of gates made beforehand

  static bool is_hoisted(const RecurrentSizes& n) { return n.T > 1 && n.rows < few_rows * n.T; }

  static Index chunk_steps(const RecurrentSizes& n) {
    const Index steps = chunk_scalars / (n.B * G * L::padded(n.H) + 1);
    return steps < 1 ? 1 : steps < n.T ? steps : n.T;
  }

  // a chunk's gates where there is no tape
  static Index chunk_size(const RecurrentSizes& n) {
    return is_hoisted(n) ? chunk_steps(n) * n.B * G * L::padded(n.H) : 0;
  }

  static Index rounded(Index n) { return (n + W - 1) / W * W; }
  static Index pointers_size(const RecurrentSizes& n) { return rounded(3 * n.B * L::pointer_scalars); }
  static Index cells_size(const RecurrentSizes& n) { return rounded(L::padded(n.H) * n.B); }

  static Index work_size(const RecurrentSizes& n, int threads) {
    return rounded(n.H) + cells_size(n) + chunk_size(n) + threads * pointers_size(n);
  }

  // What one thread needs throughout.
  struct Context {
    RecurrentForward<Real> a;
    Part part;
    bool hoisted;       // products with x made beforehand: only where a thread has all positions
    const Real* zeros;  // [H]
    Real* cells;
    Index cell_rows;      // of a block
    Real* gates;          // the tape, or a chunk's
    Index gate_rows;      // of a block
    const Real **x, **h;  // [B] by position: rows of the step
    Real** y;
  };

  static void run(const RecurrentForward<Real>& a) {
    const RecurrentSizes& n = a.size;
    const Groups groups = Groups::of(L::vectors(n.H), 1);
    L::set_zero(a.work, n.H);
    parallel(L::team_size_of(n, a.threads, groups.count, 1.0), [&](const Team& team) {
      if (a.tape) {
        run_part<true>(a, team, groups);
      } else {
        run_part<false>(a, team, groups);
      }
    });
  }

  template <bool training>
  static void run_part(const RecurrentForward<Real>& a, const Team& team, const Groups& groups) {
    const RecurrentSizes& n = a.size;
    Context k{};
    k.part = L::part_of(n, a.schedule, team, groups);
    k.hoisted = is_hoisted(n) && k.part.positions.end - k.part.positions.begin == n.B;
    k.a = a;
    k.zeros = a.work;
    Real* cells = a.work + rounded(n.H);
    Real* chunk = cells + cells_size(n);
    Real* pointers = chunk + chunk_size(n) + team.index * pointers_size(n);
    k.cells = training ? a.tape + G * L::padded(n.H) * n.rows : cells;
    k.cell_rows = training ? n.B + n.rows : n.B;
    k.gates = training ? a.tape : chunk;
    k.gate_rows = training ? n.rows : chunk_steps(n) * n.B;
    k.x = reinterpret_cast<const Real**>(pointers);
    k.h = k.x + n.B;
    k.y = const_cast<Real**>(k.h + n.B);

    L::read_state(a.c_0, a.schedule, k.part, n.H, k.cells, k.cell_rows);
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
    L::for_blocks(k.a.size.H, k.part.vectors, [&](const Block& block) {
      if (block.quads == 0) {
        project_block<training, G, PW, W>(k, begin, end, block);
      } else {
        with_quads(block.quads, [&]<int Q>() {
          // the vectors of a quad side by side, or quads of one vector each
          project_block<training, Q * L::quad_vectors, QW, L::quad_vectors == 1 ? 0 : W>(k, begin, end, block);
        });
      }
    });
  }

  // V vectors of gates a row; rows of `row` scalars; `vector` scalars between vectors, 0: a quad's rows
  template <bool training, int V, Index row, Index vector>
  static void project_block(const Context& k, Index begin, Index end, const Block& block) {
    const RecurrentForward<Real>& a = k.a;
    const Schedule& s = a.schedule;
    const Index I = a.size.I, H = a.size.H;
    ProductTile<Real> tile;
    tile.operand[0].segment = 0;
    tile.operand[0].depth = I;
    tile.operand[0].count = 1;
    tile.init = a.packed + L::panel_of(block, I, H);
    tile.goes_on = false;
    tile.panel = tile.init + V * W;
    tile.c_vector = vector ? vector : k.gate_rows * row;
    tile.lanes = W;
    Real* gates = k.gates + G * block.unit * k.gate_rows + gate_row<training>(k, begin, begin) * row;
    Index t = begin, p = k.part.positions.begin;
    for_tiles(0, s.first[end] - s.first[begin], S::tile_rows[V], [&](Index, Index count) {
      for (Index m = 0; m < count; ++m, ++p) {
        if (p == s.alive[t]) ++t, p = 0;
        tile.operand[0].row[m] = a.x.data + t * a.x.step + s.order[p] * a.x.row;
        tile.c[m] = gates;
        gates += row;
      }
      run_product<S, V, S::tile_rows[V], 0>(count, tile);
    });
  }

  template <bool training>
  static void step(const Context& k, Index t, Index begin) {
    const RecurrentForward<Real>& a = k.a;
    const Schedule& s = a.schedule;
    const Index I = a.size.I, H = a.size.H, first = k.part.positions.begin;
    const Index count = alive_in(s, t, k.part.positions);
    if (count == 0) return;
    // c before and after the step; in place without a tape
    const Index before = !training ? 0 : t == 0 ? 0 : a.size.B + s.first[t - 1];
    const Index after = !training ? 0 : a.size.B + s.first[t];
    set_rows(k, t, first, first + count, before);

    CellTile<Real> tile;
    tile.a.segment = tile.b.segment = 0;
    tile.a.depth = I;
    tile.b.depth = H;
    tile.a.count = k.hoisted ? 0 : 1;
    tile.b.count = 1;
    const Index row = gate_row<training>(k, t, begin);
    // a tile of m rows from position p on, at a block; its rows are `units` units wide, and planes of so many units
    // follow each other
    const auto place = [&](const Block& block, Index units, Index p, Index m) {
      const Real* packed = a.packed + L::panel_of(block, I, H);
      const Index gates_row = L::gates_of(block);
      Real* gates = k.gates + G * block.unit * k.gate_rows + (row + p) * G * units;
      tile.panel = packed + gates_row + (k.hoisted ? I * gates_row : 0);
      tile.panel_block = L::panel_rows(I, H) * gates_row;
      tile.init = k.hoisted ? gates : packed;
      tile.init_row = k.hoisted ? G * units : 0;
      tile.init_block = k.hoisted ? k.gate_rows * G * units : block.quads ? QW : tile.panel_block;
      if constexpr (training) tile.gates = gates;
      tile.gates_block = k.gate_rows * G * units;
      tile.c_in = k.cells + block.unit * k.cell_rows + (before + p) * units;
      tile.c_out = k.cells + block.unit * k.cell_rows + (after + p) * units;
      tile.c_block = k.cell_rows * units;
      tile.lanes = block.lanes;
      for (Index i = 0; i < m; ++i) {
        tile.a.row[i] = k.x[p + i];
        tile.b.row[i] = k.h[p + i];
        tile.y[i] = k.y[p + i] + block.unit;
      }
    };
    const Index full = H / W;
    if (count == 1) {  // several wide blocks at once, for independent chains
      const Index end = k.part.vectors.end < full ? k.part.vectors.end : full;
      for_tiles(k.part.vectors.begin, end, S::single_row_blocks, [&](Index v, Index N) {
        place(Block{v * W, 0, W}, W, first, 1);
        run_blocks<training>(N, tile);
      });
    }
    L::for_blocks(H, k.part.vectors, [&](const Block& block) {
      if (block.quads > 0) {
        with_quads(block.quads, [&]<int Q>() {
          constexpr int most = most_narrow_rows<Q>();
          const Index whole = count / R;
          for_tiles(0, whole, most / R, [&](Index g, Index groups) {
            place(block, 4, first + g * R, groups * R);
            run_narrow<Q, training, most / R>(groups, tile);
          });
          if (count % R) {
            place(block, 4, first + whole * R, count % R);
            run_narrow_rest<Q, training>(count % R, tile);
          }
        });
      } else if (count > 1) {
        for_tiles(first, first + count, S::tile_rows[G], [&](Index p, Index m) {
          place(block, W, p, m);
          run_rows<training>(m, tile);
        });
      }
    });
  }

  // where the rows of a step are; resets clear c, and h is read from zeros
  static void set_rows(const Context& k, Index t, Index begin, Index end, Index before) {
    const RecurrentForward<Real>& a = k.a;
    const Index* order = a.schedule.order + begin;
    set_pointers(a.x.data + t * a.x.step, a.x.row, order, end - begin, k.x + begin);
    set_pointers(a.y.data + t * a.y.step, a.y.row, order, end - begin, k.y + begin);
    const Real* h = t > 0 ? a.y.data + (t - 1) * a.y.step : a.h_0 ? a.h_0 : k.zeros;
    set_pointers(h, t > 0 ? a.y.row : a.h_0 ? a.size.H : 0, order, end - begin, k.h + begin);
    if (a.schedule.resets == nullptr) return;
    for (Index p = begin; p < end; ++p) {
      if (!is_reset(a.schedule, t, p)) continue;
      k.h[p] = k.zeros;
      L::for_pieces(a.size.H, k.part.vectors, [&](Index unit, Index width, Index) {
        L::set_zero(k.cells + unit * k.cell_rows + (before + p) * width, width);
      });
    }
  }

  // final states, and zeros in y beyond each row's length
  template <bool training>
  static void finish(const Context& k) {
    const RecurrentForward<Real>& a = k.a;
    const Schedule& s = a.schedule;
    const Index H = a.size.H;
    for (Index p = k.part.positions.begin; p < k.part.positions.end; ++p) {
      const Index b = s.order[p], length = s.length[p];
      Real* y = a.y.data + b * a.y.row;
      const Real* h = length > 0 ? y + (length - 1) * a.y.step : a.h_0 ? a.h_0 + b * H : k.zeros;
      L::write_columns(h, k.part, H, a.h_n + b * H);
      for (Index t = length; t < a.size.T; ++t) L::write_columns(nullptr, k.part, H, y + t * a.y.step);
      const Index last = training && length > 0 ? a.size.B + s.first[length - 1] : 0;
      L::for_pieces(H, k.part.vectors, [&](Index unit, Index width, Index lanes) {
        const Real* c = k.cells + unit * k.cell_rows + (last + p) * width;
        store_lanes<S>(a.c_n + b * H + unit, load_lanes<S>(c, width), lanes);
      });
    }
  }

  // ---- tiles of wide blocks

  template <int M, int N, bool training>
  __attribute__((noinline)) static void cell_tile(const CellTile<Real>& t) {
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
      const Real* panel = t.panel;
      if (t.a.count) panel = multiply_blocks<N>(gate, t.a.row[0], t.a.depth, panel, t.panel_block);
      multiply_blocks<N>(gate, t.b.row[0], t.b.depth, panel, t.panel_block);
    }
    apply_cell<M, N, 0, training>(gate, t);
  }

  // one row by N panels
  template <int N>
  LSTMX_INLINE const Real* multiply_blocks(Vec (&gate)[N][G], const Real* a, Index depth, const Real* panel,
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

  // how many of `left` cells to apply together: a few, so that their activations interleave
  static constexpr int together(int left) {
    const int most = S::cell_rows;
    return left < most ? left : left % most == 1 && most > 2 ? most - 1 : most;
  }

  // the cell for [first, M * N)
  template <int M, int N, int first, bool training>
  LSTMX_INLINE void apply_cell(Vec (&gate)[M * N][G], const CellTile<Real>& t) {
    if constexpr (first < M * N) {
      constexpr int count = together(M * N - first);
      Vec g[count][G], c[count], h[count];
      LSTMX_UNROLL
      for (int r = 0; r < count; ++r) {
        const int m = (first + r) / N, n = (first + r) % N;
        LSTMX_UNROLL
        for (int j = 0; j < G; ++j) g[r][j] = gate[first + r][j];
        c[r] = S::load(t.c_in + m * W + n * t.c_block);
      }
      Cell::template forward<count>(g, c, h);
      LSTMX_UNROLL
      for (int r = 0; r < count; ++r) {
        const int m = (first + r) / N, n = (first + r) % N;
        S::store(t.c_out + m * W + n * t.c_block, c[r]);
        S::store(t.y[m] + n * W, h[r]);
        if constexpr (training) {
          LSTMX_UNROLL
          for (int j = 0; j < G; ++j) S::store(t.gates + m * PW + n * t.gates_block + j * W, g[r][j]);
        }
      }
      apply_cell<M, N, first + count, training>(gate, t);
    }
  }

  template <bool training, int M = S::tile_rows[G]>
  LSTMX_INLINE void run_rows(Index rows, const CellTile<Real>& t) {
    if (rows == M) return cell_tile<M, 1, training>(t);
    if constexpr (M > 1) run_rows<training, M - 1>(rows, t);
  }

  template <bool training, int N = S::single_row_blocks>
  LSTMX_INLINE void run_blocks(Index blocks, const CellTile<Real>& t) {
    if (blocks == N) return cell_tile<1, N, training>(t);
    if constexpr (N > 1) run_blocks<training, N - 1>(blocks, t);
  }

  // ---- tiles of narrow blocks: M rows by Q quads

  template <int Q>
  static constexpr int most_narrow_rows() {
    return S::tile_rows[Q * L::quad_vectors] / R * R;
  }

  template <int M, int Q, bool training>
  __attribute__((noinline)) static void narrow_tile(const CellTile<Real>& t) {
    constexpr int D = L::quad_vectors, V = Q * D;
    Vec gate[M][V];
    LSTMX_UNROLL
    for (int m = 0; m < M; ++m) {
      LSTMX_UNROLL
      for (int v = 0; v < V; ++v) gate[m][v] = S::load(t.init + m * t.init_row + v / D * t.init_block + v % D * W);
    }
    multiply_operand<S, M, V>(gate, t.b, multiply_operand<S, M, V>(gate, t.a, t.panel));
    apply_narrow<M, Q, 0, training>(gate, t);
  }

  // the cell for [first, all), of which each takes a quad in R rows
  template <int M, int Q, int first, bool training>
  LSTMX_INLINE void apply_narrow(Vec (&gate)[M][Q * L::quad_vectors], const CellTile<Real>& t) {
    constexpr int D = L::quad_vectors, all = (M + R - 1) / R * Q;
    if constexpr (first < all) {
      constexpr int count = together(all - first);
      Vec g[count][G], c[count], h[count];
      LSTMX_UNROLL
      for (int r = 0; r < count; ++r) {
        const int m = (first + r) / Q * R, q = (first + r) % Q, rows = M - m < R ? M - m : R;
        LSTMX_UNROLL
        for (int j = 0; j < G; ++j)
          g[r][j] = j / D < rows ? gate[m + j / D < M ? m + j / D : m][q * D + j % D] : S::set(0);
        S::gates_of_quads(g[r]);
        c[r] = load_lanes<S>(t.c_in + m * 4 + q * t.c_block, rows * 4);
      }
      Cell::template forward<count>(g, c, h);
      LSTMX_UNROLL
      for (int r = 0; r < count; ++r) {
        const int m = (first + r) / Q * R, q = (first + r) % Q, rows = M - m < R ? M - m : R;
        store_lanes<S>(t.c_out + m * 4 + q * t.c_block, c[r], rows * 4);
        store_quads<0, M>(t, h[r], m, rows, q * 4, t.lanes - q * 4 < 4 ? t.lanes - q * 4 : 4);
        if constexpr (training) {
          LSTMX_UNROLL
          for (int j = 0; j < G; ++j)
            store_lanes<S>(t.gates + m * QW + q * t.gates_block + j * rows * 4, g[r][j], rows * 4);
        }
      }
      apply_narrow<M, Q, first + count, training>(gate, t);
    }
  }

  // four lanes of h for each of some rows of y
  template <int l, int M>
  LSTMX_INLINE void store_quads(const CellTile<Real>& t, Vec h, int m, int rows, int unit, Index lanes) {
    if constexpr (l < R && l < M) {
      if (l < rows) S::template store_four<l>(t.y[m + l] + unit, h, lanes);
      store_quads<l + 1, M>(t, h, m, rows, unit, lanes);
    }
  }

  template <class Body>
  LSTMX_INLINE void with_quads(Index quads, const Body& body) {
    if constexpr (L::most_quads == 1) {
      body.template operator()<1>();
    } else {
      with_constant(quads, body);
    }
  }

  template <int Q, bool training, int groups>
  LSTMX_INLINE void run_narrow(Index count, const CellTile<Real>& t) {
    if (count == groups) return narrow_tile<groups * R, Q, training>(t);
    if constexpr (groups > 1) run_narrow<Q, training, groups - 1>(count, t);
  }

  template <int Q, bool training, int M = R - 1>
  LSTMX_INLINE void run_narrow_rest(Index rows, const CellTile<Real>& t) {
    if constexpr (M > 0) {
      if (rows == M) return narrow_tile<M, Q, training>(t);
      run_narrow_rest<Q, training, M - 1>(rows, t);
    }
  }
};

}  // namespace
