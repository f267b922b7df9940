// The forward pass of a cell through time: the frame of all, and the steps of a fused cell.
//
// A fused step makes, in one register tile, the gates of a block of hidden units for a few rows, and the cell on them
// while they are in registers; staged_forward.h has the steps of other cells. The products with x are made in the same
// tile, or, where a step has too few rows to fill a tile (short batches), beforehand for a chunk of steps at once; the
// sums are the same bits either way.
#pragma once

namespace {

template <class S>
struct ForwardFrame : Layout<S> {
  using L = Layout<S>;
  using Real = typename S::Real;
  using Vec = typename S::Vec;
  using L::W, L::G, L::PW, L::QW, L::R;
  static constexpr Index few_rows = 4;                  // a step of fewer has its products with x made beforehand
  static constexpr Index chunk_limit = L::l2_size / 2;  // of gates made beforehand

  static bool is_hoisted(const RecurrentSizes& n) {
    return n.T > 1 && n.rows < few_rows * n.T && !n.normalized && n.parts == 0;
  }

  static Index chunk_steps(const RecurrentSizes& n) {
    const Index steps = chunk_limit / (n.B * G * L::padded(n.H) + 1);
    return steps < 1 ? 1 : steps < n.T ? steps : n.T;
  }

  // the gates of a chunk, or of a step (which staged ones need), where there is no tape
  static Index chunk_size(const RecurrentSizes& n) {
    const Index steps = is_hoisted(n) ? chunk_steps(n) : 1;
    return steps * n.B * G * L::padded(n.H);
  }

  // of a step that normalizes: c, the products with x and with h, and what with
  static Index normalizing_size(const RecurrentSizes& n) {
    return n.normalized ? n.B * (L::vectors(n.H) * W + 2 * G * L::padded(n.H)) + L::moments_size(n, 1, n.B) : 0;
  }

  // of a staged cell before a projection: for each position
  static Index outputs_size(const RecurrentSizes& n) { return n.P != n.H ? n.B * L::vectors(n.H) * W : 0; }

  static Index rounded(Index n) { return (n + W - 1) / W * W; }
  static Index pointers_size(const RecurrentSizes& n) { return rounded(4 * n.B * L::pointer_size); }
  static Index zeros_size(const RecurrentSizes& n) { return L::vectors(n.H > n.P ? n.H : n.P) * W; }
  static Index cells_size(const RecurrentSizes& n) { return rounded(L::padded(n.H) * n.B); }

  // of a thread, for an engine: the rows of a step in parts, and which of them are out of its range
  static Index split_blocks(const RecurrentSizes& n) { return Tiles<S>::blocks(n.I) + Tiles<S>::blocks(n.P); }
  static Index split_rows_size(const RecurrentSizes& n) {
    return Tiles<S>::count(n.B) * split_blocks(n) * n.parts * Tiles<S>::floats;
  }
  static Index split_size(const RecurrentSizes& n) { return n.parts > 0 ? split_rows_size(n) + rounded(n.B) : 0; }

  static Index work_size(const RecurrentSizes& n, int threads) {
    return zeros_size(n) + cells_size(n) + chunk_size(n) + outputs_size(n) + rounded(normalizing_size(n)) +
           threads * (pointers_size(n) + split_size(n));
  }

  struct Context;
  // a staged cell, applied to the gates of step t: rows of the gates and of c before and after, `count` of each
  using Apply = void (*)(const Context&, Index t, Index row, Index count, Index before, Index after);

  // What one thread needs throughout.
  struct Context {
    RecurrentForward<Real> a;
    const CellTraits<S>* cell;
    Apply apply;         // null: the cell is fused
    Apply apply_output;  // makes h of a cell that normalizes
    Part part;
    bool hoisted;       // products with x made beforehand: only where a thread has all positions
    const Real* zeros;  // [H or P]
    Real* cells;
    Index cell_rows;    // of a block
    Real* gates;        // the tape, or a chunk's
    Index gate_rows;    // of a block
    Real* outputs;      // [B][H in whole vectors], what is to be projected
    Real* masked;       // the tape's, by row [P]; or null
    Real* products[2];  // with x and with h, to be normalized over units, or normalized over rows: as gates
    typename L::Moments moments;
    Real* seen;             // [B][H in whole vectors], the c to be normalized
    Real* values;           // the tape's, of h's function, as cells; or null
    const Real **x, **h;    // [B] by position: rows of the step
    const Real** entering;  // what of h enters weight_hh, in a staged step
    Real** y;
    Bf16* split;           // for an engine: the step's rows of x and of what enters weight_hh, in parts
    unsigned char* unfit;  // which of them are out of its range
  };

  // Steps::step<training>(context, team, t, first step of the chunk)
  template <class Steps>
  static void run_steps(const RecurrentForward<Real>& a, const CellTraits<S>& cell, Apply apply, Apply output) {
    const RecurrentSizes& n = a.size;
    const Groups groups = Groups::of(L::vectors(n.H), 1);
    L::set_zero(a.work, zeros_size(n));
    parallel(L::team_size_of(n, a.threads, groups.count, 1.0), [&](const Team& team) {
      if (a.tape) {
        run_part<Steps, true>(a, cell, apply, output, team, groups);
      } else {
        run_part<Steps, false>(a, cell, apply, output, team, groups);
      }
    });
  }

  template <class Steps, bool training>
  static void run_part(const RecurrentForward<Real>& a, const CellTraits<S>& cell, Apply apply, Apply output,
                       const Team& team, const Groups& groups) {
    const RecurrentSizes& n = a.size;
    Context k{};
    k.part = L::part_of(n, a.schedule, team, groups);
    k.hoisted = is_hoisted(n) && k.part.positions.end - k.part.positions.begin == n.B;
    k.a = a;
    k.cell = &cell;
    k.apply = apply;
    k.apply_output = output;
    k.zeros = a.work;
    Real* cells = a.work + zeros_size(n);
    Real* chunk = cells + cells_size(n);
    k.outputs = chunk + chunk_size(n);
    Real* normalizing = k.outputs + outputs_size(n);
    Real* pointers = normalizing + rounded(normalizing_size(n)) + team.index * pointers_size(n);
    k.cells = training ? a.tape + L::tape_gates(n) : cells;
    k.masked = training && n.masked ? k.cells + L::tape_cells(n) : nullptr;
    if (n.normalized) {
      const Index plane = training ? L::tape_gates(n) : G * L::padded(n.H) * n.B;
      k.seen = normalizing;
      k.products[0] = training ? L::normalized_of(n, a.tape) : normalizing + n.B * L::vectors(n.H) * W;
      k.products[1] = k.products[0] + plane;
      Real* moments = k.products[1] + plane;
      k.moments = L::moments_of(n, training ? n.rows : n.B, moments);
      k.values = training ? moments + L::moments_size(n, n.T, n.rows) : nullptr;
    }
    k.cell_rows = training ? n.B + n.rows : n.B;
    k.gates = training ? a.tape : chunk;
    k.gate_rows = training ? n.rows : (k.hoisted ? chunk_steps(n) : 1) * n.B;
    k.x = reinterpret_cast<const Real**>(pointers);
    k.h = k.x + n.B;
    k.entering = k.h + n.B;
    k.y = const_cast<Real**>(k.entering + n.B);
    Real* split = pointers + (team.size - team.index) * pointers_size(n) + team.index * split_size(n);
    k.split = reinterpret_cast<Bf16*>(split);
    k.unfit = reinterpret_cast<unsigned char*>(split + split_rows_size(n));

    if (a.engine) a.engine->enter();
    L::read_state(a.c_0, a.schedule, k.part, n.H, k.cells, k.cell_rows);
    const Index steps = k.hoisted ? chunk_steps(n) : n.T;
    for (Index begin = 0; begin < n.T; begin += steps) {
      const Index end = begin + steps < n.T ? begin + steps : n.T;
      if (k.hoisted) project<training>(k, begin, end);
      for (Index t = begin; t < end; ++t) {
        Steps::template step<training>(k, team, t, k.hoisted ? begin : t);
        if (k.part.meets) team.barrier();
      }
    }
    finish<training>(k);
    if (a.engine) a.engine->leave();
  }

  // the row of position 0 at step t in `gates`, which hold the steps from `begin` on where there is no tape
  template <bool training>
  LSTMX_INLINE Index gate_row(const Context& k, Index t, Index begin) {
    const Schedule& s = k.a.schedule;
    return training ? s.first[t] : s.first[t] - s.first[begin];
  }

  template <class Body>
  LSTMX_INLINE void with_quads(Index quads, const Body& body) {
    if constexpr (L::most_quads == 1) {
      body.template operator()<1>();
    } else {
      with_constant(quads, body);
    }
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

  // V vectors of gates a row; rows of `row` numbers; `vector` numbers between vectors, 0: a quad's rows
  template <bool training, int V, Index row, Index vector>
  static void project_block(const Context& k, Index begin, Index end, const Block& block) {
    const RecurrentForward<Real>& a = k.a;
    const Schedule& s = a.schedule;
    const Index I = a.size.I;
    ProductTile<Real> tile;
    tile.operand[0].segment = 0;
    tile.operand[0].depth = I;
    tile.operand[0].count = 1;
    tile.operand[1].count = 0;
    tile.init = a.packed + L::panel_of(block, I, a.size.P);
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
      run_product<S, V, S::tile_rows[V], 0, 0>(count, tile);
    });
  }

  // where the rows of a step are; resets clear c, and h is read from zeros
  static void set_rows(const Context& k, Index t, Index begin, Index end, Index before) {
    const RecurrentForward<Real>& a = k.a;
    const Index* order = a.schedule.order + begin;
    set_pointers(a.x.data + t * a.x.step, a.x.row, order, end - begin, k.x + begin);
    set_pointers(a.y.data + t * a.y.step, a.y.row, order, end - begin, k.y + begin);
    const Real* h = t > 0 ? a.y.data + (t - 1) * a.y.step : a.h_0 ? a.h_0 : k.zeros;
    set_pointers(h, t > 0 ? a.y.row : a.h_0 ? a.size.P : 0, order, end - begin, k.h + begin);
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
    const Index H = a.size.H, P = a.size.P;
    for (Index p = k.part.positions.begin; p < k.part.positions.end; ++p) {
      const Index b = s.order[p], length = s.length[p];
      Real* y = a.y.data + b * a.y.row;
      const Real* h = length > 0 ? y + (length - 1) * a.y.step : a.h_0 ? a.h_0 + b * P : k.zeros;
      L::write_columns(h, k.part, H, P, a.h_n + b * P);
      for (Index t = length; t < a.size.T; ++t) {
        L::write_columns(nullptr, k.part, H, P, y + t * a.y.step);
        if (a.cells.data) L::write_columns(nullptr, k.part, H, H, a.cells.data + t * a.cells.step + b * a.cells.row);
        if (a.gates.data == nullptr) continue;
        for (int g = 0; g < G; ++g)
          L::write_columns(nullptr, k.part, H, H, a.gates.data + t * a.gates.step + b * a.gates.row + g * H);
      }
      const Index last = training && length > 0 ? a.size.B + s.first[length - 1] : 0;
      L::for_pieces(H, k.part.vectors, [&](Index unit, Index width, Index lanes) {
        const Real* c = k.cells + unit * k.cell_rows + (last + p) * width;
        store_lanes<S>(a.c_n + b * H + unit, load_lanes<S>(c, width), lanes);
      });
    }
  }

  // what is wanted of every step, while it is at hand: c, and the gates as the cell applied them
  template <bool training>
  static void write_step(const Context& k, Index t, Index count, Index cells_row) {
    const RecurrentForward<Real>& a = k.a;
    const Index H = a.size.H, begin = k.part.positions.begin;
    const auto row_of = [&](const View3<Real>& to, Index p) {
      return to.data + t * to.step + a.schedule.order[p] * to.row;
    };
    if (a.cells.data) {
      L::for_pieces(H, k.part.vectors, [&](Index unit, Index width, Index lanes) {
        const Real* c = k.cells + unit * k.cell_rows + cells_row * width;
        for (Index p = begin; p < begin + count; ++p)
          store_lanes<S>(row_of(a.cells, p) + unit, load_lanes<S>(c + p * width, width), lanes);
      });
    }
    if constexpr (training) {
      if (a.gates.data == nullptr) return;
      L::for_pieces(H, k.part.vectors, [&](Index unit, Index width, Index lanes) {
        const Real* gates = k.gates + G * unit * k.gate_rows + (a.schedule.first[t] + begin) * G * width;
        const Index most = width == W ? 1 : R;
        for (Index r = 0; r < count; r += most) {
          const Index rows = count - r < most ? count - r : most;
          for (Index i = 0; i < rows; ++i) {
            Real* to = row_of(a.gates, begin + r + i) + unit;
            for (int g = 0; g < G; ++g)
              store_lanes<S>(to + g * H, load_lanes<S>(gates + (r * G + g * rows + i) * width, width), lanes);
          }
        }
      });
    }
  }
};

// One tile of a step: M rows by N wide blocks (one of the two is 1), or M rows by one narrow block.
template <class Real>
struct CellTile {
  Operand<Real> a, b;  // x (count 0 where it is in init already) and h
  const Real* panel;   // of the first block
  Index panel_block;   // numbers from a block's panel to the next
  const Real* init;    // gates: the bias (init_row 0) or the gates so far
  Index init_row, init_block;
  const Real* c_in;  // by row, W or 4 numbers
  Real* c_out;
  Index c_block;
  Real* gates;  // by row, PW or QW numbers; training only
  Index gates_block;
  Real* y[most_tile_rows];
  Index lanes;  // valid units of a narrow block
};

template <class S, class Cell>
struct FusedForward : ForwardFrame<S> {
  using F = ForwardFrame<S>;
  using L = Layout<S>;
  using Real = typename S::Real;
  using Vec = typename S::Vec;
  using Context = typename F::Context;
  using L::W, L::G, L::PW, L::QW, L::R;

  static void run(const RecurrentForward<Real>& a, const CellTraits<S>& cell) {
    F::template run_steps<FusedForward>(a, cell, nullptr, nullptr);
  }

  template <bool training>
  static void step(const Context& k, const Team&, Index t, Index begin) {
    const RecurrentForward<Real>& a = k.a;
    const Schedule& s = a.schedule;
    const Index I = a.size.I, H = a.size.H, first = k.part.positions.begin;
    const Index count = alive_in(s, t, k.part.positions);
    if (count == 0) return;
    // c before and after the step; in place without a tape
    const Index before = !training ? 0 : t == 0 ? 0 : a.size.B + s.first[t - 1];
    const Index after = !training ? 0 : a.size.B + s.first[t];
    F::set_rows(k, t, first, first + count, before);

    CellTile<Real> tile;
    tile.a.segment = tile.b.segment = 0;
    tile.a.depth = I;
    tile.b.depth = H;
    tile.a.count = k.hoisted ? 0 : 1;
    tile.b.count = 1;
    const Index row = F::template gate_row<training>(k, t, begin);
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
        F::with_quads(block.quads, [&]<int Q>() {
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
    F::template write_step<training>(k, t, count, after);
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
      if constexpr (training) {  // what is written at the end, for a tape is larger than the caches
        LSTMX_UNROLL
        for (int m = 0; m < M; ++m) {
          fetch<3>(t.gates + m * PW, PW);
          fetch<3>(t.c_out + m * W, W);
          fetch<3>(t.y[m], W);
        }
      }
      multiply_operand<S, M, G>(gate, t.b, multiply_operand<S, M, G>(gate, t.a, t.panel));
    } else {
      const Real* panel = t.panel;
      if (t.a.count) panel = multiply_blocks<N>(gate, t.a.row[0], t.a.depth, panel, t.panel_block);
      multiply_blocks<N>(gate, t.b.row[0], t.b.depth, panel, t.panel_block);
    }
    Outputs<0> none;
    apply_cell<M * N, 0>(
        [&](int i, Vec(&g)[G], Vec& c) __attribute__((always_inline)) {
          LSTMX_UNROLL
          for (int j = 0; j < G; ++j) g[j] = gate[i][j];
          c = S::load(t.c_in + i / N * W + i % N * t.c_block);
        },
        [&](int i, const Vec(&g)[G], Vec c) __attribute__((always_inline)) {
          const int m = i / N, n = i % N;
          S::store(t.c_out + m * W + n * t.c_block, c);
          if constexpr (training) {
            LSTMX_UNROLL
            for (int j = 0; j < G; ++j) S::store(t.gates + m * PW + n * t.gates_block + j * W, g[j]);
          }
        },
        [&](int i, Vec h) __attribute__((always_inline)) { S::store(t.y[i / N] + i % N * W, h); }, none);
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

  template <int n>
  using Outputs = typename Cell::template Outputs<n>;

  // The cell for the vectors of units [first, all) of a tile, and h of the few before: read(i, gates, c), write(i,
  // gates, c) and write_output(i, h) of each.
  template <int all, int first, int before_count, class Read, class Write, class WriteOutput>
  LSTMX_INLINE void apply_cell(const Read& read, const Write& write, const WriteOutput& write_output,
                               Outputs<before_count>& before) {
    const auto write_before = [&]() __attribute__((always_inline)) {
      LSTMX_UNROLL
      for (int p = 0; p < before_count; ++p) write_output(first - before_count + p, before.h[p]);
    };
    if constexpr (first == all) {
      Cell::template finish<before_count>(before);
      write_before();
    } else {
      constexpr int count = together(all - first);
      Vec g[count][G], c[count];
      LSTMX_UNROLL
      for (int r = 0; r < count; ++r) read(first + r, g[r], c[r]);
      Outputs<count> out;
      Cell::template forward<count, before_count>(g, c, before, out);
      write_before();
      LSTMX_UNROLL
      for (int r = 0; r < count; ++r) write(first + r, g[r], c[r]);
      apply_cell<all, first + count, count>(read, write, write_output, out);
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
    // each takes a quad in R rows
    const auto rows_from = [](int m) { return M - m < R ? M - m : R; };
    Outputs<0> none;
    apply_cell<(M + R - 1) / R * Q, 0>(
        [&](int i, Vec(&g)[G], Vec& c) __attribute__((always_inline)) {
          const int m = i / Q * R, q = i % Q, rows = rows_from(m);
          LSTMX_UNROLL
          for (int j = 0; j < G; ++j)
            g[j] = j / D < rows ? gate[m + j / D < M ? m + j / D : m][q * D + j % D] : S::set(0.0f);
          S::gates_of_quads(g);
          c = load_lanes<S>(t.c_in + m * 4 + q * t.c_block, rows * 4);
        },
        [&](int i, const Vec(&g)[G], Vec c) __attribute__((always_inline)) {
          const int m = i / Q * R, q = i % Q, rows = rows_from(m);
          store_lanes<S>(t.c_out + m * 4 + q * t.c_block, c, rows * 4);
          if constexpr (training) {
            LSTMX_UNROLL
            for (int j = 0; j < G; ++j)
              store_lanes<S>(t.gates + m * QW + q * t.gates_block + j * rows * 4, g[j], rows * 4);
          }
        },
        [&](int i, Vec h) __attribute__((always_inline)) {
          const int m = i / Q * R, q = i % Q;
          store_quads<0, M>(t, h, m, rows_from(m), q * 4, t.lanes - q * 4 < 4 ? t.lanes - q * 4 : 4);
        },
        none);
  }

  // four lanes of h for each of some rows of y
  template <int l, int M>
  LSTMX_INLINE void store_quads(const CellTile<Real>& t, Vec h, int m, int rows, int unit, Index lanes) {
    if constexpr (l < R && l < M) {
      if (l < rows) S::template store_four<l>(t.y[m + l] + unit, h, lanes);
      store_quads<l + 1, M>(t, h, m, rows, unit, lanes);
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
