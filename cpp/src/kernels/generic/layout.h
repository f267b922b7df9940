// How a recurrent layer lies in memory, for any Choices and Cell (kernels.h has the legend).
//
// Hidden units are cut into wide blocks of W, whose gates are G vectors [i][f][g][o]; the H % W units left over go into
// quads of four, whose gates are 16 scalars [i i i i f f f f g g g g o o o o], so that few lanes are wasted. A narrow
// block is what a tile takes of them: up to four quads where a vector holds a quad's gates, one where it does not.
//   packed forward   for each block [1 + I + H][gates of the block]: the bias, a row for each x, a row for each h
//   packed backward  U, then W: for each group of columns the gate rows in the order block or quad, gate, lane
//   tape             gates: for each wide block [rows][PW], for each quad [rows][QW]
//                    cells: for each wide block [B + rows][W], for each quad [B + rows][4]: c_0 by position, then c
//                    after each row's step
// The gates' layout serves three times: a store of the forward tile, rows contiguous over k for dH = dG U and dX = dG
// W, and a packed operand for dW = dG^T x, dU = dG^T h. Lanes beyond H hold rubbish that nothing reads back.
// Before backward has made them gradients, the gates of the same quad in up to R rows of a step, counted from a
// multiple of R, stand together by gate: what a cell reads and writes is then whole vectors.
#pragma once

namespace {

using lstmx::ConstView3;
using lstmx::RecurrentBackward;
using lstmx::RecurrentForward;
using lstmx::RecurrentSizes;
using lstmx::RecurrentWeights;
using lstmx::Schedule;

// What a thread of a team works on in a step: positions, and hidden units in vectors of W. Either is whole.
struct Part {
  Range positions, vectors;
  bool meets;  // whether the others' hidden units must be ready before the next step
};

// Hidden units that a tile makes together: W of them side by side, or quads.
struct Block {
  Index unit;   // the first
  Index quads;  // 0: wide
  Index lanes;  // valid units
};

inline bool is_reset(const Schedule& s, Index t, Index position) {
  return s.resets != nullptr && s.resets[t * s.reset_step + s.order[position] * s.reset_row] != 0;
}

// to[p] = the row of position p of a matrix, rows `row` scalars apart
template <class Real>
LSTMX_INLINE void set_pointers(Real* matrix, Index row, const Index* order, Index count, Real** to) {
  for (Index p = 0; p < count; ++p) to[p] = matrix + order[p] * row;
}

// The number of positions in [begin, end) alive at step t.
inline Index alive_in(const Schedule& s, Index t, const Range& positions) {
  const Index end = s.alive[t] < positions.end ? s.alive[t] : positions.end;
  return end > positions.begin ? end - positions.begin : 0;
}

template <class S, class Cell_>
struct Layout {
  using Real = typename S::Real;
  using Vec = typename S::Vec;
  using Cell = Cell_;
  static constexpr Index W = S::width;
  static constexpr int G = Cell::gates;
  static_assert(G == 4, "a quad's gates are sixteen scalars");
  static constexpr Index PW = G * W;
  static constexpr Index QW = G * 4;
  static constexpr int R = W / 4;                                  // rows whose quads fill a vector
  static constexpr int quad_vectors = QW / W;                      // of a quad's gates
  static constexpr int most_quads = quad_vectors == 1 ? R : 1;     // of a narrow block
  static constexpr Index l2_scalars = 1024 * 1024 / sizeof(Real);  // what is taken to stay in a private L2

  static constexpr Index pointer_scalars = sizeof(void*) / sizeof(Real);

  static Index vectors(Index H) { return (H + W - 1) / W; }
  static Index quads(Index H) { return (H % W + 3) / 4; }
  static Index padded(Index H) { return H / W * W + quads(H) * 4; }  // units in memory
  static Index panel_rows(Index I, Index H) { return 1 + I + H; }

  static Index pack_forward_size(Index I, Index H) { return G * padded(H) * panel_rows(I, H); }
  static Index pack_backward_size(Index I, Index H) { return G * H * (vectors(H) + vectors(I)) * W; }
  static Index tape_size(const RecurrentSizes& n) { return padded(n.H) * (G * n.rows + n.B + n.rows); }

  // ---- blocks

  // body(Block) for the blocks of the vectors [begin, end) of hidden units
  template <class Body>
  static void for_blocks(Index H, const Range& range, const Body& body) {
    const Index full = H / W;
    for (Index v = range.begin; v < range.end && v < full; ++v) body(Block{v * W, 0, W});
    if (range.end <= full) return;
    for (Index unit = full * W; unit < H; unit += most_quads * 4) {
      const Index lanes = H - unit < most_quads * 4 ? H - unit : most_quads * 4;
      body(Block{unit, (lanes + 3) / 4, lanes});
    }
  }

  // body(first unit, units, valid units) for what lies side by side in a row: a wide block or a quad
  template <class Body>
  static void for_pieces(Index H, const Range& range, const Body& body) {
    for_blocks(H, range, [&](const Block& block) {
      if (block.quads == 0) return body(block.unit, W, W);
      for (Index u = 0; u < block.lanes; u += 4)
        body(block.unit + u, Index(4), block.lanes - u < 4 ? block.lanes - u : Index(4));
    });
  }

  static Index gates_of(const Block& block) { return block.quads == 0 ? PW : block.quads * QW; }

  // where gate g of the block's unit l stands among the block's gates
  static Index lane_of(const Block& block, int g, Index l) {
    return block.quads == 0 ? g * W + l : l / 4 * QW + g * 4 + l % 4;
  }

  // ---- packing

  // body(block, lane, width, first gate row, gate rows) for each gate of what lies side by side: `lane` is where it
  // stands among the block's gates, `width` how many lanes it has there
  template <class Body>
  static void for_gates(Index H, const Body& body) {
    for_blocks(H, {0, vectors(H)}, [&](const Block& block) {
      const Index width = block.quads == 0 ? W : 4;
      for (Index u = 0; u < block.lanes; u += width) {
        const Index lanes = block.lanes - u < width ? block.lanes - u : width;
        for (int g = 0; g < G; ++g) body(block, lane_of(block, g, u), width, g * H + block.unit + u, lanes);
      }
    });
  }

  // where the block's rows of a packed panel begin
  static Index panel_of(const Block& block, Index I, Index H) { return G * block.unit * panel_rows(I, H); }

  static void pack_forward(const RecurrentWeights<Real>& w, Index I, Index H, Real* packed) {
    for_gates(H, [&](const Block& block, Index lane, Index width, Index first, Index lanes) {
      const Index row = gates_of(block);
      Real* out = packed + panel_of(block, I, H) + lane;
      const Vec ih = w.bias_ih ? S::load_n(w.bias_ih + first, lanes) : S::set(0);
      const Vec hh = w.bias_hh ? S::load_n(w.bias_hh + first, lanes) : S::set(0);
      store_lanes<S>(out, S::add(ih, hh), width);
      pack_transposed<S>(w.weight_ih + first * I, I, I, lanes, width, out + row, row);
      pack_transposed<S>(w.weight_hh + first * H, H, H, lanes, width, out + (1 + I) * row, row);
    });
  }

  static void pack_backward(const RecurrentWeights<Real>& w, Index I, Index H, Real* packed) {
    const auto order = [H](Index k) {  // the k-th gate row: block or quad, gate, lane
      const Index full = H / W;
      Index unit = k / PW * W, units = W, rest = k % PW;
      if (unit >= full * W) {
        rest = k - full * PW;
        unit = full * W + rest / QW * 4;
        units = H - unit < 4 ? H - unit : 4;
        rest %= QW;
      }
      return rest / units * H + unit + rest % units;
    };
    packed = pack_columns<S>(w.weight_hh, H, G * H, H, packed, order);
    pack_columns<S>(w.weight_ih, I, G * H, I, packed, order);
  }

  // ---- how a team splits a step

  // Steps of a few rows are bound by the weights that they read: then the hidden units are split, and the threads meet
  // after each step. Otherwise the positions are split, and each thread goes through time alone.
  static bool splits_units(const RecurrentSizes& n, int threads) {
    const Index weights = G * n.H * (n.I + n.H);
    return n.B < 4 * threads || (weights > l2_scalars && n.B < 32 * threads);
  }

  // `groups`: of vectors of hidden units that stay together
  static int team_size_of(const RecurrentSizes& n, int threads, Index groups, double passes) {
    const double madds = passes * double(n.rows) * G * n.H * (n.I + n.H);
    return team_size(threads, madds, splits_units(n, threads) ? groups : row_groups(n));
  }

  static Part part_of(const RecurrentSizes& n, const Schedule& schedule, const Team& team, const Groups& groups) {
    if (team.size > 1 && splits_units(n, team.size)) {
      const Range share = team.share(groups.count);
      return {{0, n.B}, {groups.first(share.begin), groups.first(share.end)}, true};
    }
    return {balanced_positions(n, schedule, team), {0, vectors(n.H)}, false};
  }

  // positions that stay together: with quads, R
  static Index together(const RecurrentSizes& n) { return quads(n.H) > 0 ? R : 1; }
  static Index row_groups(const RecurrentSizes& n) { return (n.B + together(n) - 1) / together(n); }

  // this thread's positions, such that all threads have about the same number of rows
  static Range balanced_positions(const RecurrentSizes& n, const Schedule& schedule, const Team& team) {
    const Index each = together(n), last = row_groups(n);
    const auto at = [&](Index group) { return group < last ? group * each : n.B; };
    if (n.rows == n.T * n.B) {
      const Range share = team.share(last);
      return {at(share.begin), at(share.end)};
    }
    Range range{n.B, n.B};
    Index before = 0;  // rows of the positions so far
    for (Index g = 0; g <= last; ++g) {
      if (range.begin == n.B && before * team.size >= n.rows * team.index) range.begin = at(g);
      if (before * team.size >= n.rows * (team.index + 1)) {
        range.end = at(g);
        break;
      }
      for (Index p = at(g); p < at(g + 1); ++p) before += schedule.length[p];
    }
    if (team.index == 0) range.begin = 0;
    if (team.index == team.size - 1) range.end = n.B;
    return range;
  }

  // ---- states [B,H] by row <-> for each wide block [rows][W], for each quad [rows][4], by position

  static void set_zero(Real* p, Index n) {
    for (Index k = 0; k < n; ++k) p[k] = 0;
  }

  // `rows`: of a block in `out`
  static void read_state(const Real* state, const Schedule& schedule, const Part& part, Index H, Real* out,
                         Index rows) {
    for_pieces(H, part.vectors, [&](Index unit, Index width, Index lanes) {
      for (Index p = part.positions.begin; p < part.positions.end; ++p) {
        const Vec v = state ? load_lanes<S>(state + schedule.order[p] * H + unit, lanes) : S::set(0);
        store_lanes<S>(out + unit * rows + p * width, v, width);
      }
    });
  }

  // Writes [begin, end) of a row that is the columns of the part's hidden units; source null: zeros.
  static void write_columns(const Real* source, const Part& part, Index H, Real* row) {
    const Index begin = part.vectors.begin * W, end = part.vectors.end * W < H ? part.vectors.end * W : H;
    for (Index k = begin; k < end; ++k) row[k] = source ? source[k] : Real(0);
  }
};

}  // namespace
