// How a recurrent layer lies in memory, for any Choices and Cell (kernels.h has the legend):
//   packed forward   [HB][1 + I + H][PW]: the bias, then a row of gate weights for each x, then for each h
//   packed backward  U, then W: for each group of columns the gate rows in the order hidden block, gate, lane
//   tape             gates [HB][rows][PW], then cells [HB][B + rows][W]: c_0 by position, then c after each row's step
// The gates' layout serves three times: a store of the forward tile, rows contiguous over k for dH = dG U and dX = dG
// W, and a packed operand for dW = dG^T x, dU = dG^T h. Lanes beyond H hold rubbish that nothing reads back.
#pragma once

namespace {

using lstmx::ConstView3;
using lstmx::RecurrentBackward;
using lstmx::RecurrentForward;
using lstmx::RecurrentSizes;
using lstmx::RecurrentWeights;
using lstmx::Schedule;

// What a thread of a team works on in a step: positions and hidden blocks. Either is whole.
struct Part {
  Range positions, blocks;
  bool meets;  // whether the others' hidden blocks must be ready before the next step
};

inline bool is_reset(const Schedule& s, Index t, Index position) {
  return s.resets != nullptr && s.resets[t * s.reset_step + s.order[position] * s.reset_row] != 0;
}

// The number of positions in [begin, end) alive at step t.
inline Index alive_in(const Schedule& s, Index t, const Range& positions) {
  const Index end = s.alive[t] < positions.end ? s.alive[t] : positions.end;
  return end > positions.begin ? end - positions.begin : 0;
}

template <class S, class Cell_>
struct Layout {
  using Vec = typename S::Vec;
  using Cell = Cell_;
  static constexpr Index W = S::width;
  static constexpr int G = Cell::gates;
  static constexpr Index PW = G * W;
  static constexpr Index l2_floats = 256 * 1024;  // 1 MB, what is taken to stay in a private L2

  static constexpr Index pointer_floats = sizeof(void*) / sizeof(float);

  static Index blocks(Index H) { return (H + W - 1) / W; }
  static Index lanes_of(Index H, Index hb) { return H - hb * W < W ? H - hb * W : W; }
  static Index panel(Index I, Index H) { return (1 + I + H) * PW; }

  static Index pack_forward_size(Index I, Index H) { return blocks(H) * panel(I, H); }
  static Index pack_backward_size(Index I, Index H) { return G * H * (blocks(H) + blocks(I)) * W; }
  static Index tape_size(const RecurrentSizes& n) { return blocks(n.H) * (n.rows * PW + (n.B + n.rows) * W); }

  static void pack_forward(const RecurrentWeights& w, Index I, Index H, float* packed) {
    for (Index hb = 0; hb < blocks(H); ++hb) {
      const Index lanes = lanes_of(H, hb);
      for (int g = 0; g < G; ++g) {
        const Index first = g * H + hb * W;
        const Vec ih = w.bias_ih ? S::load_n(w.bias_ih + first, lanes) : S::set(0.0f);
        const Vec hh = w.bias_hh ? S::load_n(w.bias_hh + first, lanes) : S::set(0.0f);
        float* out = packed + g * W;
        S::store(out, S::add(ih, hh));
        for (Index k = 0; k < I; ++k) S::store(out += PW, S::gather_n(w.weight_ih + first * I + k, I, lanes));
        for (Index k = 0; k < H; ++k) S::store(out += PW, S::gather_n(w.weight_hh + first * H + k, H, lanes));
      }
      packed += panel(I, H);
    }
  }

  static void pack_backward(const RecurrentWeights& w, Index I, Index H, float* packed) {
    const auto order = [H](Index k) {  // the k-th gate row: hidden block, gate, lane
      const Index hb = k / PW, lanes = lanes_of(H, hb), rest = k - hb * PW;
      return rest / lanes * H + hb * W + rest % lanes;
    };
    packed = pack_columns<S>(w.weight_hh, H, G * H, H, packed, order);
    pack_columns<S>(w.weight_ih, I, G * H, I, packed, order);
  }

  // ---- how a team splits a step

  // Steps of a few rows are bound by the weights that they read: then the hidden blocks are split, and the threads meet
  // after each step. Otherwise the positions are split, and each thread goes through time alone.
  static bool splits_blocks(const RecurrentSizes& n, int threads) {
    const Index weights = G * n.H * (n.I + n.H);
    return n.B < 4 * threads || (weights > l2_floats && n.B < 32 * threads);
  }

  // `groups`: of hidden blocks that stay together
  static int team_size_of(const RecurrentSizes& n, int threads, Index groups, double passes) {
    const double madds = passes * double(n.rows) * G * n.H * (n.I + n.H);
    return team_size(threads, madds, splits_blocks(n, threads) ? groups : n.B);
  }

  static Part part_of(const RecurrentSizes& n, const Schedule& schedule, const Team& team, const ColumnGroups& groups) {
    const Index HB = blocks(n.H);
    if (team.size > 1 && splits_blocks(n, team.size)) {
      const Range share = team.share(groups.count);
      return {{0, n.B}, {groups.first(share.begin), groups.first(share.end)}, true};
    }
    return {balanced_positions(n, schedule, team), {0, HB}, false};
  }

  // this thread's positions, such that all threads have about the same number of rows
  static Range balanced_positions(const RecurrentSizes& n, const Schedule& schedule, const Team& team) {
    if (n.rows == n.T * n.B) return team.share(n.B);
    Range range{n.B, n.B};
    Index before = 0;  // rows of the positions so far
    for (Index p = 0; p <= n.B; ++p) {
      if (range.begin == n.B && before * team.size >= n.rows * team.index) range.begin = p;
      if (before * team.size >= n.rows * (team.index + 1)) {
        range.end = p;
        break;
      }
      if (p < n.B) before += schedule.length[p];
    }
    if (team.index == 0) range.begin = 0;
    if (team.index == team.size - 1) range.end = n.B;
    return range;
  }

  // ---- states [B,H] by row <-> [HB][*][W] by position

  static void set_zero(float* p, Index n) {
    for (Index k = 0; k < n; k += W) S::store(p + k, S::set(0.0f));
  }

  static void read_state(const float* state, const Schedule& schedule, const Part& part, Index H, float* out,
                         Index block) {
    for (Index hb = part.blocks.begin; hb < part.blocks.end; ++hb) {
      for (Index p = part.positions.begin; p < part.positions.end; ++p) {
        const Vec v = state ? load_lanes<S>(state + schedule.order[p] * H + hb * W, lanes_of(H, hb)) : S::set(0.0f);
        S::store(out + hb * block + p * W, v);
      }
    }
  }

  // Writes [begin, end) of a row that is the columns of the part's hidden blocks; source null: zeros.
  static void write_columns(const float* source, const Part& part, Index H, float* row) {
    const Index begin = part.blocks.begin * W, end = part.blocks.end * W < H ? part.blocks.end * W : H;
    for (Index k = begin; k < end; ++k) row[k] = source ? source[k] : 0.0f;
  }
};

}  // namespace
