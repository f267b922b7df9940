// The time loop of a pointwise cell, forward and backward, for any Choices and Cell. Layouts (kernels.h has the
// legend):
//   packed forward   [HB][1 + I + H][PW]: the bias, then a row of gate weights for each x, then for each h
//   packed backward  U, then W: for each group of columns the gate rows in the order hidden block, gate, lane
//   tape             gates [HB][T*B][PW], then cells [HB][(T+1)*B][W], block 0 being c_0
// The gates' layout serves three times: a store of the forward tile, rows contiguous over k for dH = dG U and dX = dG
// W, and a packed operand for dW = dG^T x, dU = dG^T h. Lanes beyond H hold finite rubbish that nothing reads back.
// Forward and the recurrent part of backward are split over batch rows without a barrier; the merged products over the
// rows of a time chunk (dX) and over tiles of the result (dW, dU), while the chunk's gates are still in L2.
#pragma once

namespace {

using lstmx::ConstView3;
using lstmx::RecurrentBackward;
using lstmx::RecurrentForward;
using lstmx::RecurrentSizes;
using lstmx::RecurrentWeights;

// One tile of the forward step: the gates of W hidden units for M batch rows, then the cell.
struct CellTile {
  Run runs[2];  // x, h
  const float* panel;
  const float* bias;
  const float* c_in;  // rows W floats apart
  float* c_out;
  float* gates;  // rows PW floats apart; null for inference
  float* y;
  Index y_row;
  Index lanes;
};

template <class S, class Cell>
struct Recurrence {
  using Vec = typename S::Vec;
  static constexpr Index W = S::width;
  static constexpr int G = Cell::gates;
  static constexpr Index PW = G * W;
  static constexpr Index chunk_rows = 384;           // least rows of a backward time chunk
  static constexpr Index chunk_floats = 256 * 1024;  // gates of a chunk: 1 MB, half of a common L2

  static Index blocks(Index H) { return (H + W - 1) / W; }
  static Index lanes_of(Index H, Index hb) { return H - hb * W < W ? H - hb * W : W; }

  // ---- sizes and packing

  static Index pack_forward_size(Index I, Index H) { return blocks(H) * (1 + I + H) * PW; }
  static Index pack_backward_size(Index I, Index H) { return G * H * (blocks(H) + blocks(I)) * W; }
  static Index tape_size(const RecurrentSizes& n) { return blocks(n.H) * (n.T * n.B * PW + (n.T + 1) * n.B * W); }
  static Index forward_work_size(const RecurrentSizes& n) { return blocks(n.H) * W * (n.B + 1); }
  static Index backward_work_size(const RecurrentSizes& n) {
    return blocks(n.H) * W * (2 * n.B + 1) + blocks(n.H) * (n.I + n.H + 1) * PW;
  }

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
      packed += (1 + I + H) * PW;
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

  // ---- forward

  template <int M, bool training>
  __attribute__((noinline)) static void cell_tile(const CellTile& t) {
    Vec gate[M][G];
    LSTMX_UNROLL
    for (int g = 0; g < G; ++g) {
      const Vec bias = S::load(t.bias + g * W);
      LSTMX_UNROLL
      for (int m = 0; m < M; ++m) gate[m][g] = bias;
    }
    multiply_runs<S, M, G>(gate, t.runs, t.panel);
    apply_cell<M, 0, training>(gate, t);
  }

  // the cell for rows [first, M), a few at a time so that their activations interleave
  template <int M, int first, bool training>
  LSTMX_INLINE void apply_cell(Vec (&gate)[M][G], const CellTile& t) {
    if constexpr (first < M) {
      constexpr int left = M - first;
      constexpr int R = left < S::cell_rows                            ? left
                        : left % S::cell_rows == 1 && S::cell_rows > 2 ? S::cell_rows - 1
                                                                       : S::cell_rows;
      Vec g[R][G], c[R], h[R];
      LSTMX_UNROLL
      for (int r = 0; r < R; ++r) {
        LSTMX_UNROLL
        for (int j = 0; j < G; ++j) g[r][j] = gate[first + r][j];
        c[r] = S::load(t.c_in + (first + r) * W);
      }
      Cell::template forward<R>(g, c, h);
      LSTMX_UNROLL
      for (int r = 0; r < R; ++r) {
        S::store(t.c_out + (first + r) * W, c[r]);
        store_lanes<S>(t.y + (first + r) * t.y_row, h[r], t.lanes);
        if constexpr (training) {
          LSTMX_UNROLL
          for (int j = 0; j < G; ++j) S::store(t.gates + (first + r) * PW + j * W, g[r][j]);
        }
      }
      apply_cell<M, first + R, training>(gate, t);
    }
  }

  template <bool training, int M = S::tile_rows[G]>
  LSTMX_INLINE void run_cell(Index rows, const CellTile& t) {
    if (rows == M) return cell_tile<M, training>(t);
    if constexpr (M > 1) run_cell<training, M - 1>(rows, t);
  }

  static void forward(const RecurrentForward& a) {
    const RecurrentSizes& n = a.size;
    const double madds = double(n.T) * n.B * G * n.H * (n.I + n.H);
    set_zero(a.work, blocks(n.H) * W);
    parallel(team_size(a.threads, madds, n.B), [&](const Team& team) {
      if (a.tape) {
        forward_rows<true>(a, team.share(n.B));
      } else {
        forward_rows<false>(a, team.share(n.B));
      }
    });
  }

  // h before step t for the rows from b on
  LSTMX_INLINE Run previous_h(const RecurrentForward& a, const float* zeros, Index t, Index b) {
    const Index H = a.size.H;
    if (t > 0) return {a.y.data + (t - 1) * a.y.step + b * a.y.row, a.y.row, 0, H, 1};
    if (a.h_0) return {a.h_0 + b * H, H, 0, H, 1};
    return {zeros, 0, 0, H, 1};
  }

  template <bool training>
  static void forward_rows(const RecurrentForward& a, Range rows) {
    const auto [T, B, I, H] = a.size;
    const Index HB = blocks(H), count = rows.end - rows.begin;
    if (count <= 0) return;
    float* cells = training ? a.tape + HB * T * B * PW : a.work + HB * W;
    const Index cell_block = training ? (T + 1) * B * W : B * W, cell_step = training ? B * W : 0;
    const float* zeros = a.work;
    read_state(a.c_0, rows, H, cells, cell_block);
    for (Index t = 0; t < T; ++t) {
      for (Index hb = 0; hb < HB; ++hb) {
        CellTile tile;
        tile.bias = a.packed + hb * (1 + I + H) * PW;
        tile.panel = tile.bias + PW;
        tile.y_row = a.y.row;
        tile.lanes = lanes_of(H, hb);
        float* c = cells + hb * cell_block + t * cell_step;
        float* gates = training ? a.tape + (hb * T + t) * B * PW : nullptr;
        for_tiles(rows.begin, rows.end, S::tile_rows[G], [&](Index b, Index m) {
          tile.runs[0] = {a.x.data + t * a.x.step + b * a.x.row, a.x.row, 0, I, 1};
          tile.runs[1] = previous_h(a, zeros, t, b);
          tile.c_in = c + b * W;
          tile.c_out = c + cell_step + b * W;
          if constexpr (training) tile.gates = gates + b * PW;
          tile.y = a.y.data + t * a.y.step + b * a.y.row + hb * W;
          run_cell<training>(m, tile);
        });
      }
    }
    write_state(cells + T * cell_step, cell_block, rows, H, a.c_n);
    for (Index b = rows.begin; b < rows.end; ++b) {
      const Run h = previous_h(a, zeros, T, b);
      for (Index k = 0; k < H; ++k) a.h_n[b * H + k] = h.data[k];
    }
  }

  // ---- backward

  // What one call of backward works on.
  struct Plan {
    const RecurrentBackward& a;
    Index HB;
    float *gates, *cells;    // the tape
    float *zeros, *dc, *dh;  // [HB*W], [HB][B][W], [B][HB*W]
    float* d_panel;          // [HB][I+H+1][PW], the gradients in the layout of the packed forward weights
    const float *u, *w;      // packed backward
  };

  static void backward(const RecurrentBackward& a) {
    const auto [T, B, I, H] = a.size;
    const Index HB = blocks(H);
    float* zeros = a.work;
    float* dc = zeros + HB * W;
    float* dh = dc + HB * B * W;
    set_zero(zeros, HB * W);
    const Plan p{
        a, HB, a.tape, a.tape + HB * T * B * PW, zeros, dc, dh, dh + B * HB * W, a.packed, a.packed + G * H * HB * W};
    const Index steps = B > 0 ? chunk_steps(B, HB) : T;
    const double madds = 2.0 * T * B * G * H * (I + H);
    parallel(team_size(a.threads, madds, B > HB ? B : HB), [&, T = T, B = B, H = H](const Team& team) {
      const Range rows = team.share(B);
      read_state(a.dc_n, rows, H, dc, B * W);
      zero_gradients(p, team);
      for (Index end = T; end > 0;) {
        const Index begin = end > steps ? end - steps : 0;
        for (Index t = end - 1; t >= begin; --t) step_back(p, t, rows);
        team.barrier();
        if (a.dx.data) input_gradients(p, begin, end, team);
        weight_gradients(p, begin, end, team);
        end = begin;
      }
      if (a.dh_0) initial_h_gradient(p, rows);
      if (a.dc_0) write_state(dc, B * W, rows, H, a.dc_0);
      unpack_gradients(p, team);
    });
  }

  LSTMX_INLINE Index chunk_steps(Index B, Index HB) {
    const Index by_rows = (chunk_rows + B - 1) / B, by_size = chunk_floats / (B * HB * PW);
    return by_rows > by_size ? by_rows : by_size;
  }

  // rows of dG from flat row r on, against a packed [G*H, columns]: the full hidden blocks, then the valid lanes of the
  // last
  LSTMX_INLINE void gate_runs(const Plan& p, Index r, Run (&runs)[2]) {
    const auto [T, B, I, H] = p.a.size;
    const Index full = H / W, block = T * B * PW;
    runs[0] = {p.gates + r * PW, PW, block, PW, full};
    runs[1] = {p.gates + full * block + r * PW, PW, W, H % W, H % W ? G : 0};
  }

  // dh = dG[t] U for batch rows [rows.begin, rows.end)
  static void carry_back(const Plan& p, Index t, Range rows) {
    const Index B = p.a.size.B, H = p.a.size.H, stride = p.HB * W;
    for_column_groups<S>(H, [&](Index first, Index vectors, Index) {
      with_vectors(vectors, [&]<int V>() {
        ProductTile tile;
        tile.panel = p.u + first * G * H;
        tile.init = nullptr;
        tile.c_row = stride;
        tile.lanes = W;
        for_tiles(rows.begin, rows.end, S::tile_rows[V], [&](Index b, Index m) {
          gate_runs(p, t * B + b, tile.runs);
          tile.c = p.dh + b * stride + first;
          run_product<S, V>(m, tile);
        });
      });
    });
  }

  static void step_back(const Plan& p, Index t, Range rows) {
    const RecurrentBackward& a = p.a;
    const auto [T, B, I, H] = a.size;
    if (rows.end <= rows.begin) return;
    if (t + 1 < T) carry_back(p, t + 1, rows);
    for (Index hb = 0; hb < p.HB; ++hb) {
      const Index lanes = lanes_of(H, hb);
      for (Index b = rows.begin; b < rows.end; ++b) {
        Vec dh = S::set(0.0f);
        if (t + 1 < T) {
          dh = S::load(p.dh + b * p.HB * W + hb * W);
        } else if (a.dh_n) {
          dh = load_lanes<S>(a.dh_n + b * H + hb * W, lanes);
        }
        if (a.dy.data) dh = S::add(dh, load_lanes<S>(a.dy.data + t * a.dy.step + b * a.dy.row + hb * W, lanes));
        const Vec h = load_lanes<S>(a.y.data + t * a.y.step + b * a.y.row + hb * W, lanes);
        const Vec c_prev = S::load(p.cells + (hb * (T + 1) + t) * B * W + b * W);
        float* gates = p.gates + (hb * T + t) * B * PW + b * PW;
        float* dc = p.dc + (hb * B + b) * W;
        Vec g[G];
        LSTMX_UNROLL
        for (int j = 0; j < G; ++j) g[j] = S::load(gates + j * W);
        Vec dcv = S::load(dc);
        Cell::backward(g, h, c_prev, dh, dcv);
        S::store(dc, dcv);
        LSTMX_UNROLL
        for (int j = 0; j < G; ++j) S::store(gates + j * W, g[j]);
      }
    }
  }

  static void initial_h_gradient(const Plan& p, Range rows) {
    const Index H = p.a.size.H, stride = p.HB * W;
    const bool any = p.a.size.T > 0;
    if (any) carry_back(p, 0, rows);
    for (Index b = rows.begin; b < rows.end; ++b) {
      for (Index k = 0; k < H; ++k)
        p.a.dh_0[b * H + k] = any ? p.dh[b * stride + k] : p.a.dh_n ? p.a.dh_n[b * H + k] : 0.0f;
    }
  }

  // dX = dG W over the steps [begin, end)
  static void input_gradients(const Plan& p, Index begin, Index end, const Team& team) {
    const auto [T, B, I, H] = p.a.size;
    const lstmx::View3& dx = p.a.dx;
    const Range share = team.share((end - begin) * B);
    for_column_groups<S>(I, [&, B = B, H = H](Index first, Index vectors, Index lanes) {
      with_vectors(vectors, [&]<int V>() {
        ProductTile tile;
        tile.panel = p.w + first * G * H;
        tile.init = nullptr;
        tile.c_row = row_distance(dx, B);
        tile.lanes = lanes;
        const Index r0 = begin * B + share.begin, r1 = begin * B + share.end;
        for_row_runs(r0, r1, B, is_uniform(dx, B), r1 - r0, [&](Index r, Index count) {
          for_tiles(r, r + count, S::tile_rows[V], [&](Index now, Index m) {
            gate_runs(p, now, tile.runs);
            tile.c = row_pointer(dx, B, now) + first;
            run_product<S, V>(m, tile);
          });
        });
      });
    });
  }

  // Calls body(hb, first feature, features) for this thread's tiles of the panel [HB][I+H+1][PW]; a tile lies within x,
  // within h or is the bias.
  template <class Body>
  static void for_gradient_tiles(const Plan& p, const Team& team, const Body& body) {
    const Index I = p.a.size.I, H = p.a.size.H, most = S::tile_rows[G];
    const Index x_tiles = (I + most - 1) / most, tiles = x_tiles + (H + most - 1) / most + 1;
    const Range share = team.share(p.HB * tiles);
    for (Index item = share.begin; item < share.end; ++item) {
      const Index hb = item / tiles, tile = item % tiles;
      if (tile == tiles - 1) {
        body(hb, I + H, Index(1));
      } else if (tile < x_tiles) {
        body(hb, tile * most, I - tile * most < most ? I - tile * most : most);
      } else {
        const Index k = (tile - x_tiles) * most;
        body(hb, I + k, H - k < most ? H - k : most);
      }
    }
  }

  static void zero_gradients(const Plan& p, const Team& team) {
    const Index features = p.a.size.I + p.a.size.H + 1;
    for_gradient_tiles(
        p, team, [&](Index hb, Index first, Index m) { set_zero(p.d_panel + (hb * features + first) * PW, m * PW); });
  }

  // dW += dG^T [x | h_prev | 1] over the steps [begin, end)
  static void weight_gradients(const Plan& p, Index begin, Index end, const Team& team) {
    const RecurrentBackward& a = p.a;
    const auto [T, B, I, H] = a.size;
    const Index features = I + H + 1;
    const bool uniform = is_uniform(a.x, B) && is_uniform(a.y, B);
    const float one = 1.0f;
    const auto block = [&, T = T, B = B, I = I, H = H](Index r, Index count) {
      for_gradient_tiles(p, team, [&](Index hb, Index first, Index m) {
        OuterTile tile;
        if (first < I) {
          tile.a = row_pointer(a.x, B, r) + first;
          tile.a_row = row_distance(a.x, B);
        } else if (first == I + H) {
          tile.a = &one;
          tile.a_row = 0;
        } else if (r >= B) {
          tile.a = row_pointer(a.y, B, r - B) + first - I;
          tile.a_row = row_distance(a.y, B);
        } else {
          tile.a = (a.h_0 ? a.h_0 + r * H : p.zeros) + first - I;
          tile.a_row = a.h_0 ? H : 0;
        }
        tile.b = p.gates + (hb * T * B + r) * PW;
        tile.b_row = PW;
        tile.count = count;
        tile.c = p.d_panel + (hb * features + first) * PW;
        tile.c_row = PW;
        tile.lanes = W;
        run_outer<S, G>(m, tile);
      });
    };
    const Index first = begin * B, last = end * B;
    if (begin == 0) for_row_runs(0, B, B, uniform, row_block, block);
    for_row_runs(begin == 0 ? B : first, last, B, uniform, row_block, block);
  }

  // adds the panel to the parameters' gradients
  static void unpack_gradients(const Plan& p, const Team& team) {
    const RecurrentBackward& a = p.a;
    const Index I = a.size.I, H = a.size.H, features = I + H + 1;
    for_gradient_tiles(p, team, [&](Index hb, Index first, Index m) {
      const float* panel = p.d_panel + (hb * features + first) * PW;
      for (int g = 0; g < G; ++g) {
        for (Index l = 0; l < lanes_of(H, hb); ++l) {
          const Index row = g * H + hb * W + l;
          const float* from = panel + g * W + l;
          if (first == I + H) {
            if (a.gradients.bias_ih) a.gradients.bias_ih[row] += *from;
            if (a.gradients.bias_hh) a.gradients.bias_hh[row] += *from;
          } else {
            float* to =
                first < I ? a.gradients.weight_ih + row * I + first : a.gradients.weight_hh + row * H + first - I;
            for (Index k = 0; k < m; ++k) to[k] += from[k * PW];
          }
        }
      }
    });
  }

  // ---- states [B,H] <-> [HB][B][W]

  static void set_zero(float* p, Index n) {
    for (Index k = 0; k < n; k += W) S::store(p + k, S::set(0.0f));
  }

  static void read_state(const float* state, Range rows, Index H, float* out, Index block) {
    for (Index hb = 0; hb < blocks(H); ++hb) {
      for (Index b = rows.begin; b < rows.end; ++b)
        S::store(out + hb * block + b * W,
                 state ? load_lanes<S>(state + b * H + hb * W, lanes_of(H, hb)) : S::set(0.0f));
    }
  }

  static void write_state(const float* in, Index block, Range rows, Index H, float* state) {
    for (Index hb = 0; hb < blocks(H); ++hb) {
      for (Index b = rows.begin; b < rows.end; ++b)
        store_lanes<S>(state + b * H + hb * W, S::load(in + hb * block + b * W), lanes_of(H, hb));
    }
  }
};

}  // namespace
