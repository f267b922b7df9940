// How a recurrent layer lies in memory, for any Choices and cell (kernels.h has the legend).
//
// Hidden units are cut into wide blocks of W, whose gates are G vectors [i][f][g][o]; the H % W units left over go into
// quads of four, whose gates are 16 numbers [i i i i f f f f g g g g o o o o], so that few lanes are wasted. A narrow
// block is what a tile takes of them: up to four quads where a vector holds a quad's gates, one where it does not.
//   packed forward   for each block [1 + I + P][gates of the block]: the bias, a row for each x, a row for each h; then
//                    what the cell has for each unit [unit_params][H in whole vectors]; where it normalizes, for each
//                    gate [3][pieces][G][W]; then the projection for m V'; then means over units
//   packed backward  U, then W: for each panel of columns the gate rows in the order block or quad, gate, lane; then as
//                    forward, but that what is for each gate lies as gates do, the projection for dh V
//   tape             gates: for each wide block [rows][PW], for each quad [rows][QW]
//                    cells: for each wide block [B + rows][W], for each quad [B + rows][4]: c_0 by position, then c
//                    after each row's step
//                    where h is masked: what entered weight_hh [rows][P]
//                    where there is normalization: both products, as gates, what they and c are normalized with, and
//                    the values of h's function, as cells: 9 H and some 16 numbers a row more
// The gates' layout serves three times: a store of the forward tile, rows contiguous over k for dH = dG U and dX = dG
// W, and a packed operand for dW = dG^T x, dU = dG^T h. Lanes beyond H hold rubbish that nothing reads back.
// Before backward has made them gradients, the gates of the same quad in up to R rows of a step, counted from a
// multiple of R, stand together by gate: what a cell reads and writes is then whole vectors.
#pragma once

namespace {

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

// to[p] = the row of position p of a matrix, rows `row` numbers apart
template <class Real>
LSTMX_INLINE void set_pointers(Real* matrix, Index row, const Index* order, Index count, Real** to) {
  for (Index p = 0; p < count; ++p) to[p] = matrix + order[p] * row;
}

// The number of positions in [begin, end) alive at step t.
inline Index alive_in(const Schedule& s, Index t, const Range& positions) {
  const Index end = s.alive[t] < positions.end ? s.alive[t] : positions.end;
  return end > positions.begin ? end - positions.begin : 0;
}

// What drivers need to know of a cell, so that they are compiled once for all of them.
template <class S>
struct CellTraits {
  using Real = typename S::Real;
  const Index *ih_gate, *hh_gate;  // [G]: where each gate's rows are in the weights; -1: nowhere
  bool staged;                     // whether it reads StagedInputs and has other gradients than the plain cell
  int unit_params;                 // parameters that each unit has for itself, and where they come from and go to
  const Real* (*unit_param)(const RecurrentWeights<Real>&, int, Index H);
  Real* (*unit_gradient)(const RecurrentGradients<Real>&, int, Index H);
  bool normalizes;  // whether it can; then there are for each gate of a unit its bias and two gains

  template <class Cell>
  static constexpr CellTraits of() {
    return {Cell::ih_gate,    Cell::hh_gate,       Cell::staged,    Cell::unit_params,
            Cell::unit_param, Cell::unit_gradient, Cell::normalizes};
  }
};

template <class S>
struct Layout {
  using Real = typename S::Real;
  using Vec = typename S::Vec;
  static constexpr Index W = S::width;
  static constexpr int G = 4;  // of any cell: a quad's gates are sixteen numbers
  static constexpr Index PW = G * W;
  static constexpr Index QW = G * 4;
  static constexpr int R = W / 4;                               // rows whose quads fill a vector
  static constexpr int quad_vectors = QW / W;                   // of a quad's gates
  static constexpr int most_quads = quad_vectors == 1 ? R : 1;  // of a narrow block
  static constexpr Index l2_size = 1024 * 1024 / sizeof(Real);  // what is taken to stay in a private L2

  static constexpr Index pointer_size = sizeof(void*) / sizeof(Real);

  static Index vectors(Index H) { return (H + W - 1) / W; }
  static Index quads(Index H) { return (H % W + 3) / 4; }
  static Index padded(Index H) { return H / W * W + quads(H) * 4; }  // units in memory
  static Index pieces(Index H) { return H / W + quads(H); }
  // where a piece's gates are in an array [pieces][G][W], in which those of a quad are repeated for R rows
  static Index params_of(Index H, Index unit) {
    const Index full = H / W * W;
    return PW * (unit < full ? unit / W : H / W + (unit - full) / 4);
  }
  static Index panel_rows(Index I, Index P) { return 1 + I + P; }

  // where a packing goes on after its panels
  static Index forward_panels(Index I, Index H, Index P) { return G * padded(H) * panel_rows(I, P); }
  static Index backward_panels(Index I, Index H, Index P) { return G * H * (vectors(P) + vectors(I)) * W; }
  static Index unit_params_size(const CellTraits<S>& cell, Index H) { return cell.unit_params * vectors(H) * W; }
  static Index gate_params_size(const CellTraits<S>& cell, Index H) { return cell.normalizes ? 3 * PW * pieces(H) : 0; }
  static Index params_size(const CellTraits<S>& cell, Index H) {
    return unit_params_size(cell, H) + gate_params_size(cell, H);
  }

  static Index means_size(const CellTraits<S>& cell, Index I, Index P) { return cell.normalizes ? G * (I + P) : 0; }

  static Index pack_forward_size(const CellTraits<S>& cell, Index I, Index H, Index P) {
    return forward_panels(I, H, P) + params_size(cell, H) + (P != H ? H * vectors(P) * W : 0) + means_size(cell, I, P);
  }
  static Index pack_backward_size(const CellTraits<S>& cell, Index I, Index H, Index P) {
    return backward_panels(I, H, P) + params_size(cell, H) + (P != H ? P * vectors(H) * W : 0) + means_size(cell, I, P);
  }

  static Index tape_cells(const RecurrentSizes& n) { return padded(n.H) * (n.B + n.rows); }
  static Index tape_gates(const RecurrentSizes& n) { return G * padded(n.H) * n.rows; }
  // What was normalized with. Layer normalization: 1 / the deviations of the products with x and with h, then c's means
  // and 1 / its deviations, each four times: [4][rows][G]. Batch normalization, by step: the first two by gate and
  // unit, the others by unit.
  struct Moments {
    Real* first;
    Index rows, gates, units;  // rows 0: by step

    // `which` of the four
    Real* at(int which, Index t, Index row) const {
      if (rows > 0) return first + (which * rows + row) * G;
      return first + t * 2 * (gates + units) + (which < 2 ? which * gates : 2 * gates + (which - 2) * units);
    }
    // c of a piece whose first row is `row`
    template <bool quads>
    Vec normalized(const Piece<S, quads>& piece, Vec c, Index t, Index row) const {
      const auto read = [&](int which) {
        const Real* p = at(which, t, row);
        return rows == 0 ? piece.of_units(p) : quads ? piece.load(p) : S::set(*p);
      };
      return S::mul(S::sub(c, read(2)), read(3));
    }
  };
  static Moments moments_of(const RecurrentSizes& n, Index rows, Real* first) {
    return {first, n.by_batch ? 0 : rows, G * padded(n.H), vectors(n.H) * W};
  }
  static Index moments_size(const RecurrentSizes& n, Index steps, Index rows) {
    return n.by_batch ? steps * 2 * (G * padded(n.H) + vectors(n.H) * W) : 4 * G * rows;
  }

  // the products with x and with h, as gates, normalized over rows or to be over units, and what with; the values of
  // h's function, as cells
  static Index normalized_size(const RecurrentSizes& n) {
    return 2 * tape_gates(n) + moments_size(n, n.T, n.rows) + padded(n.H) * n.rows;
  }
  static Real* normalized_of(const RecurrentSizes& n, Real* tape) {
    return tape + tape_gates(n) + tape_cells(n) + (n.masked ? n.rows * n.P : 0);
  }
  static Index tape_size(const RecurrentSizes& n) {
    return tape_gates(n) + tape_cells(n) + (n.masked ? n.rows * n.P : 0) + (n.normalized ? normalized_size(n) : 0);
  }

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

  // body(piece, its first row) for the pieces of the part's units in a step of `count` rows; those of the same rows one
  // after the other, the wide ones and then the quads
  template <class Body>
  static void for_pieces_of_step(Index H, const Part& part, Index count, const Body& body) {
    const Index full = H / W, end = part.vectors.end < full ? part.vectors.end : full;
    for (Index r = 0; r < count; ++r) {
      for (Index v = part.vectors.begin; v < end; ++v) body(Piece<S, false>{v * W, W, 1}, r);
    }
    if (part.vectors.end <= full) return;
    for (Index r = 0; r < count; r += R) {
      const Index rows = count - r < R ? count - r : R;
      for (Index unit = full * W; unit < H; unit += 4) body(Piece<S, true>{unit, H - unit < 4 ? H - unit : 4, rows}, r);
    }
  }

  static Index gates_of(const Block& block) { return block.quads == 0 ? PW : block.quads * QW; }

  // where gate g of the block's unit l stands among the block's gates
  static Index lane_of(const Block& block, int g, Index l) {
    return block.quads == 0 ? g * W + l : l / 4 * QW + g * 4 + l % 4;
  }

  // Sixteen numbers of a row of gates, where W is 16: a gate of a wide block, or a quad.
  struct GateTile {
    Block block;       // that it belongs to in panels
    Index lane;        // where it stands among the block's gates
    Index unit, from;  // the first unit of its rows of a tape, and where it stands in a row
    Index row;         // numbers from a row to the next
  };

  static Index gate_tiles(Index H) { return padded(H) / 4; }
  static GateTile gate_tile(Index H, Index n) {
    const Index full = H / W, quad = n - full * G;
    if (quad < 0) return {{n / G * W, 0, W}, n % G * W, n / G * W, n % G * W, PW};
    return {{full * W, quads(H), H - full * W}, quad * QW, full * W + quad * 4, 0, QW};
  }
  // where it begins in a plane of gates of `rows` rows
  static Index place_of(const GateTile& tile, Index rows) { return G * tile.unit * rows + tile.from; }

  // ---- packing

  // body(block, lane, width, gate, unit, units) for each gate of what lies side by side: `lane` is where it stands
  // among the block's gates, `width` how many lanes it has there
  template <class Body>
  static void for_gates(Index H, const Body& body) {
    for_blocks(H, {0, vectors(H)}, [&](const Block& block) {
      const Index width = block.quads == 0 ? W : 4;
      for (Index u = 0; u < block.lanes; u += width) {
        const Index lanes = block.lanes - u < width ? block.lanes - u : width;
        for (int g = 0; g < G; ++g) body(block, lane_of(block, g, u), width, g, block.unit + u, lanes);
      }
    });
  }

  // where the block's rows of a packed panel begin
  static Index panel_of(const Block& block, Index I, Index P) { return G * block.unit * panel_rows(I, P); }

  // The means over the units of each gate of both weight matrices' columns, [G][columns]. Without them the weights'
  // products have mean 0 over units, as layer normalization wants it.
  struct UnitMeans {
    const Real *ih, *hh;  // or null
  };
  static UnitMeans unit_means(const RecurrentWeights<Real>& w, Index I, Index H, Index P, Real* means) {
    if (!w.layer_norm) return {nullptr, nullptr};
    find_unit_means(w.weight_ih, H, I, means);
    find_unit_means(w.weight_hh, H, P, means + G * I);
    return {means, means + G * I};
  }
  static void find_unit_means(const Real* weight, Index H, Index columns, Real* means) {
    set_zero(means, G * columns);
    for (Index g = 0; g < G; ++g, means += columns, weight += H * columns) {
      for (Index k = 0; k < columns; k += W) {
        const Index lanes = columns - k < W ? columns - k : W;
        for_row_blocks(H, [&](Index unit, Index count) {
          add_column_sums<S, 1>(weight + unit * columns + k, 0, columns, count, means + k, lanes);
        });
      }
      for (Index k = 0; k < columns; ++k) means[k] /= static_cast<Real>(H);
    }
  }

  static void pack_forward(const CellTraits<S>& cell, const RecurrentWeights<Real>& w, Index I, Index H, Index P,
                           Real* packed) {
    const UnitMeans means = unit_means(w, I, H, P, packed + pack_forward_size(cell, I, H, P) - means_size(cell, I, P));
    for_gates(H, [&](const Block& block, Index lane, Index width, int gate, Index unit, Index lanes) {
      const Index row = gates_of(block), ih = cell.ih_gate[gate], hh = cell.hh_gate[gate];
      Real* out = packed + panel_of(block, I, P) + lane;
      const auto bias = [&](const Real* b, Index g) {
        return b && g >= 0 ? S::load_n(b + g * H + unit, lanes) : S::set(0.0f);
      };
      store_lanes<S>(out, S::add(bias(w.bias_ih, ih), bias(w.bias_hh, hh)), width);
      pack_gate(w.weight_ih, means.ih, ih, I, H, unit, lanes, width, out + row, row);
      pack_gate(w.weight_hh, means.hh, hh, P, H, unit, lanes, width, out + (1 + I) * row, row);
    });
    packed += forward_panels(I, H, P);
    packed = pack_params<true>(cell, w, H, packed);
    if (P != H) {
      for_column_groups<S>(P, [&](Index first, Index vectors, Index lanes) {
        const Index row = vectors * W, columns = row - W + lanes;
        pack_transposed<S>(w.weight_hr + first * H, H, H, columns, row, packed, row);
        packed += H * row;
      });
    }
  }

  static void pack_backward(const CellTraits<S>& cell, const RecurrentWeights<Real>& w, Index I, Index H, Index P,
                            Real* packed) {
    // the k-th gate row, of those that `rows` names: block or quad, gate, lane
    const auto order = [H](const Index* rows) {
      return [H, rows](Index k) -> Index {
        const Index full = H / W;
        Index unit = k / PW * W, units = W, rest = k % PW;
        if (unit >= full * W) {
          rest = k - full * PW;
          unit = full * W + rest / QW * 4;
          units = H - unit < 4 ? H - unit : 4;
          rest %= QW;
        }
        const Index gate = rows[rest / units];
        return gate < 0 ? -1 : gate * H + unit + rest % units;
      };
    };
    const UnitMeans means = unit_means(w, I, H, P, packed + pack_backward_size(cell, I, H, P) - means_size(cell, I, P));
    const auto pack = [&](const Real* weight, const Real* of_gates, Index columns, const Index* rows) {
      for_panels<S>(columns, [&]<class X>(Index first, Index panel_vectors, Index lanes) {
        pack_columns<X>(weight + first, columns, G * H, (panel_vectors - 1) * X::width + lanes, packed + G * H * first,
                        order(rows),
                        [&](Index row) { return of_gates ? of_gates + row / H * columns + first : nullptr; });
      });
      packed += G * H * vectors(columns) * W;
    };
    pack(w.weight_hh, means.hh, P, cell.hh_gate);
    pack(w.weight_ih, means.ih, I, cell.ih_gate);
    packed = pack_params<false>(cell, w, H, packed);
    if (P != H) pack_columns<S>(w.weight_hr, H, P, H, packed, [](Index k) { return k; });
  }

  // one gate of some units of a weight matrix of `depth` columns; a gate that it lacks is zeros
  static void pack_gate(const Real* weight, const Real* means, Index gate, Index depth, Index H, Index unit,
                        Index lanes, Index width, Real* out, Index row) {
    if (gate >= 0) {
      pack_transposed<S>(weight + (gate * H + unit) * depth, depth, depth, lanes, width, out, row,
                         means ? means + gate * depth : nullptr);
    } else {
      for (Index k = 0; k < depth; ++k) store_lanes<S>(out + k * row, S::set(0.0f), width);
    }
  }

  // what the cell has for each unit, then what it has for each gate of a unit, by piece or as gates are; returns its
  // end
  template <bool by_piece>
  static Real* pack_params(const CellTraits<S>& cell, const RecurrentWeights<Real>& w, Index H, Real* packed) {
    packed = pack_unit_params(cell, w, H, packed);
    if (!cell.normalizes) return packed;
    for_gates(H, [&](const Block& block, Index lane, Index width, int gate, Index unit, Index lanes) {
      Real* out = packed + (by_piece ? params_of(H, unit) + gate * W : G * block.unit + lane);
      const Index plane = PW * pieces(H);
      for (Index l = 0; l < (by_piece ? W : width); ++l, ++out) {
        const bool valid = l % width < lanes && w.gain_ih != nullptr;
        const Index at = gate * H + unit + l % width;
        out[0] = (valid && w.bias_ih ? w.bias_ih[at] : 0) + (valid && w.bias_hh ? w.bias_hh[at] : 0);
        out[plane] = valid ? w.gain_ih[at] : 0;
        out[2 * plane] = valid ? w.gain_hh[at] : 0;
      }
    });
    return packed + gate_params_size(cell, H);
  }

  // with zeros up to a whole vector
  static Real* pack_unit_params(const CellTraits<S>& cell, const RecurrentWeights<Real>& w, Index H, Real* packed) {
    const Index stride = vectors(H) * W;
    for (int e = 0; e < cell.unit_params; ++e, packed += stride) {
      const Real* from = cell.unit_param(w, e, H);
      for (Index u = 0; u < stride; ++u) packed[u] = from && u < H ? from[u] : 0.0f;
    }
    return packed;
  }

  // ---- how a team splits a step

  // Steps of a few rows are bound by the weights that they read: then the hidden units are split, and the threads meet
  // after each step. Otherwise the positions are split, and each thread goes through time alone.
  static bool splits_units(const RecurrentSizes& n, int threads) {
    if (n.by_batch) return true;                   // it reads all rows of a unit
    if (n.P != n.H || n.normalized) return false;  // a projection, or a mean, reads all units of a row
    const Index weights = G * n.H * (n.I + n.P);
    if (n.parts > 0) return n.B < 16 * threads;  // fewer rows would fill no tile
    return n.B < 4 * threads || (weights > l2_size && n.B < 32 * threads);
  }

  // `groups`: of vectors of hidden units that stay together
  static int team_size_of(const RecurrentSizes& n, int threads, Index groups, double passes) {
    if (n.by_batch && n.P != n.H) return 1;  // nothing is left to split
    const double madds = passes * double(n.rows) * G * n.H * (n.I + n.P);
    return team_size(threads, madds, splits_units(n, threads) ? groups : row_groups(n));
  }

  static Part part_of(const RecurrentSizes& n, const Schedule& schedule, const Team& team, const Groups& groups) {
    if (team.size > 1 && splits_units(n, team.size)) {
      const Range share = team.share(groups.count);
      return {{0, n.B}, {groups.first(share.begin), groups.first(share.end)}, true};
    }
    return {balanced_positions(n, schedule, team), {0, vectors(n.H)}, false};
  }

  // positions that stay together: with quads, or sums over units that rows make together, R
  static Index together(const RecurrentSizes& n) { return quads(n.H) > 0 || (n.normalized && !n.by_batch) ? R : 1; }
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
    for (Index k = 0; k < n; ++k) p[k] = 0.0f;
  }

  // `rows`: of a block in `out`
  static void read_state(const Real* state, const Schedule& schedule, const Part& part, Index H, Real* out,
                         Index rows) {
    for_pieces(H, part.vectors, [&](Index unit, Index width, Index lanes) {
      for (Index p = part.positions.begin; p < part.positions.end; ++p) {
        const Vec v = state ? load_lanes<S>(state + schedule.order[p] * H + unit, lanes) : S::set(0.0f);
        store_lanes<S>(out + unit * rows + p * width, v, width);
      }
    });
  }

  // body(j) for what of a row, `size` long, the part has to write: a part of some hidden units has these columns; one
  // of all units has all, of a projection too
  template <class Body>
  static void for_columns(const Part& part, Index H, Index size, const Body& body) {
    const Index end = part.vectors.end == vectors(H) ? size : part.vectors.end * W;
    for (Index j = part.vectors.begin * W; j < end; ++j) body(j);
  }

  // source null: zeros
  static void write_columns(const Real* source, const Part& part, Index H, Index size, Real* row) {
    for_columns(part, H, size, [&](Index j) { row[j] = source ? source[j] : 0.0f; });
  }
};

}  // namespace
