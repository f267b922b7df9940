// Matrix products in register tiles. Two forms carry everything:
//   product  C[m][:] = init + A[m][:] * P     a row of C is one chain over k, whatever the tile: its bits depend on it
//   alone outer    C[m][:] += sum_k A[k][m] * B[k][:]     sums over rows, in blocks of row_block
// A tile has M rows and V vectors; Choices::tile_rows says how many rows fit the registers beside V vectors. Rows of A
// and C are given by pointers, so that any strides and any choice of rows cost the same.
#pragma once

namespace {

template <class S>
using RealOf = typename S::Real;

constexpr Index row_block = 256;    // rows summed in registers before they are added to the result
constexpr int most_tile_rows = 14;  // of any target

// The cache lines of n numbers start on their way to a cache: 3 L1, 2 L2. The empty statement keeps a compiler from
// taking what only does so for what does nothing.
template <int level, class Real>
LSTMX_INLINE void fetch(const Real* p, Index n) {
  constexpr Index line = 64 / sizeof(Real);
  for (Index i = 0; i < n; i += line) __builtin_prefetch(p + i, 0, level);
  asm volatile("");
}

// acc[m] += sum_k a[m][k] * panel[k], a panel row being V vectors; returns the panel's end
template <class S, int M, int V>
LSTMX_INLINE const RealOf<S>* multiply(typename S::Vec (&acc)[M][V], const RealOf<S>* const (&a)[M],
                                       const RealOf<S>* panel, Index depth) {
  constexpr int W = S::width;
#pragma GCC unroll 4
  for (Index k = 0; k < depth; ++k, panel += V * W) {
    if constexpr (V < M || S::registers > 16) {
      typename S::Vec b[V];
      LSTMX_UNROLL
      for (int v = 0; v < V; ++v) b[v] = S::load(panel + v * W);
      LSTMX_UNROLL
      for (int m = 0; m < M; ++m) {
        const typename S::Vec s = S::set(a[m][k]);
        LSTMX_UNROLL
        for (int v = 0; v < V; ++v) acc[m][v] = S::fma(s, b[v], acc[m][v]);
      }
    } else {  // few registers: hold the M scalars, stream the vectors
      typename S::Vec s[M];
      LSTMX_UNROLL
      for (int m = 0; m < M; ++m) s[m] = S::set(a[m][k]);
      LSTMX_UNROLL
      for (int v = 0; v < V; ++v) {
        const typename S::Vec b = S::load(panel + v * W);
        LSTMX_UNROLL
        for (int m = 0; m < M; ++m) acc[m][v] = S::fma(s[m], b, acc[m][v]);
      }
    }
  }
  return panel;
}

// [begin, end) in balanced tiles of at most `most` rows: 50 rows by 6 are five tiles of 6 and four of 5, not eight and
// a rest
template <class Body>
LSTMX_INLINE void for_tiles(Index begin, Index end, Index most, const Body& body) {
  const Index n = end - begin;
  if (n <= 0) return;
  const Index count = (n + most - 1) / most, rows = n / count, extra = n % count;
  for (Index i = 0, m = begin; i < count; ++i) {
    const Index now = rows + (i < extra ? 1 : 0);
    body(m, now);
    m += now;
  }
}

// n things in `count` balanced groups; group g begins at first(g).
struct Groups {
  Index n, count;

  LSTMX_INLINE Groups of(Index n, Index most) { return {n, (n + most - 1) / most}; }
  // columns in groups of at most four vectors
  LSTMX_INLINE Groups of_columns(Index columns, Index width) { return of((columns + width - 1) / width, 4); }
  Index first(Index g) const {
    const Index each = n / count, extra = n % count;
    return g * each + (g < extra ? g : extra);
  }
};

// The groups [begin, end) of n columns: body(first column, vectors, valid lanes of the last vector)
template <class S, class Body>
LSTMX_INLINE void for_column_groups(Index n, Index begin, Index end, const Body& body) {
  constexpr Index W = S::width;
  const Groups groups = Groups::of_columns(n, W);
  for (Index g = begin; g < end; ++g) {
    const Index first = groups.first(g), vectors = groups.first(g + 1) - first;
    const Index rest = n - (first + vectors - 1) * W;
    body(first * W, vectors, rest < W ? rest : W);
  }
}

template <class S, class Body>
LSTMX_INLINE void for_column_groups(Index n, const Body& body) {
  for_column_groups<S>(n, 0, Groups::of_columns(n, S::width).count, body);
}

// The same, but what is at most half a vector at the end is a group of its own, in a target's half vectors X:
// body<X>(first column, vectors, valid lanes of the last vector)
template <class S, class Body>
LSTMX_INLINE void for_panels(Index n, const Body& body) {
  for_column_groups<S>(n, [&](Index first, Index vectors, Index lanes) {
    if constexpr (requires { typename S::Narrow; }) {
      if (lanes <= S::Narrow::width) {
        if (vectors > 1) body.template operator()<S>(first, vectors - 1, Index(S::width));
        return body.template operator()<typename S::Narrow>(first + (vectors - 1) * S::width, Index(1), lanes);
      }
    }
    body.template operator()<S>(first, vectors, lanes);
  });
}

template <class S>
LSTMX_INLINE typename S::Vec load_lanes(const RealOf<S>* p, Index lanes) {
  return lanes == S::width ? S::load(p) : S::load_n(p, lanes);
}

template <class S>
LSTMX_INLINE void store_lanes(RealOf<S>* p, typename S::Vec a, Index lanes) {
  if (lanes == S::width) {
    S::store(p, a);
  } else {
    S::store_n(p, a, lanes);
  }
}

// Rows of a left operand in `count` segments: element k of segment s in row m is row[m][s * segment + k], k < depth.
template <class Real>
struct Operand {
  const Real* row[most_tile_rows];
  Index segment, depth, count;
};

// acc += operand * panel; returns the panel's end. With a distance, only the first row is looked at and the others
// follow it so many numbers apart: known to the compiler, they cost no pointers.
template <class S, int M, int V, int distance = 0>
LSTMX_INLINE const RealOf<S>* multiply_operand(typename S::Vec (&acc)[M][V], const Operand<RealOf<S>>& operand,
                                               const RealOf<S>* panel) {
  if (operand.count == 0) return panel;
  const RealOf<S>* a[M];
  LSTMX_UNROLL
  for (int m = 0; m < M; ++m) a[m] = distance ? operand.row[0] + m * distance : operand.row[m];
  for (Index s = 0; s < operand.count; ++s) {
    panel = multiply<S, M, V>(acc, a, panel, operand.depth);
    LSTMX_UNROLL
    for (int m = 0; m < M; ++m) a[m] = distance && m > 0 ? a[0] + m * distance : a[m] + operand.segment;
  }
  return panel;
}

// One tile of C = init + [operands side by side] * panel.
template <class Real>
struct ProductTile {
  Operand<Real> operand[3];
  const Real* panel;
  const Real* init;  // V vectors added to every row, or null
  bool goes_on;      // C holds the sums so far; instead of init
  Real* c[most_tile_rows];
  Index c_vector;  // numbers between the vectors of a row of C
  Index lanes;     // valid lanes of the last vector
};

// An operand for each of `distances`; 0: its rows are wherever their pointers say.
template <class S, int M, int V, int... distances>
__attribute__((noinline)) void product_tile(const ProductTile<RealOf<S>>& t) {
  constexpr int W = S::width;
  typename S::Vec acc[M][V];
  if (t.goes_on) {
    LSTMX_UNROLL
    for (int m = 0; m < M; ++m) {
      LSTMX_UNROLL
      for (int v = 0; v < V; ++v) acc[m][v] = load_lanes<S>(t.c[m] + v * t.c_vector, v + 1 < V ? W : t.lanes);
    }
  } else {
    LSTMX_UNROLL
    for (int v = 0; v < V; ++v) {
      const typename S::Vec first = t.init ? S::load(t.init + v * W) : S::set(0.0f);
      LSTMX_UNROLL
      for (int m = 0; m < M; ++m) acc[m][v] = first;
    }
  }
  const RealOf<S>* panel = t.panel;
  const Operand<RealOf<S>>* operand = t.operand;
  ((panel = multiply_operand<S, M, V, distances>(acc, *operand++, panel)), ...);
  LSTMX_UNROLL
  for (int m = 0; m < M; ++m) {
    RealOf<S>* c = t.c[m];
    LSTMX_UNROLL
    for (int v = 0; v + 1 < V; ++v) S::store(c + v * t.c_vector, acc[m][v]);
    store_lanes<S>(c + (V - 1) * t.c_vector, acc[m][V - 1], t.lanes);
  }
}

// One tile of C += A^T B over `count` rows, at most row_block of them.
template <class Real>
struct OuterTile {
  const Real* const* a;  // element m of row k is a[k][first + m]; or null, and it is packed[k * M + m]
  Index first;
  const Real* packed;
  const Real* b;  // V vectors a row, b_vector numbers apart
  Index b_vector, b_row;
  Index count;
  Real* c;
  Index c_row;
  Index lanes;  // valid lanes of the last vector, of B and of C
};

template <class S, int M, int V, bool packed>
__attribute__((noinline)) void outer_tile(const OuterTile<RealOf<S>>& t) {
  constexpr int W = S::width;
  typename S::Vec acc[M][V];
  LSTMX_UNROLL
  for (int m = 0; m < M; ++m) {
    LSTMX_UNROLL
    for (int v = 0; v < V; ++v) acc[m][v] = S::set(0.0f);
  }
  const RealOf<S>* b[V];
  LSTMX_UNROLL
  for (int v = 0; v < V; ++v) b[v] = t.b + v * t.b_vector;
  for (Index k = 0, row = 0; k < t.count; ++k, row += t.b_row) {
    const RealOf<S>* a = packed ? t.packed + k * M : t.a[k] + t.first;
    if constexpr (V < M || S::registers > 16) {
      typename S::Vec bv[V];
      LSTMX_UNROLL
      for (int v = 0; v + 1 < V; ++v) bv[v] = S::load(b[v] + row);
      bv[V - 1] = load_lanes<S>(b[V - 1] + row, t.lanes);
      LSTMX_UNROLL
      for (int m = 0; m < M; ++m) {
        const typename S::Vec s = S::set(a[m]);
        LSTMX_UNROLL
        for (int v = 0; v < V; ++v) acc[m][v] = S::fma(s, bv[v], acc[m][v]);
      }
    } else {  // few registers: hold the M scalars, stream the vectors
      typename S::Vec s[M];
      LSTMX_UNROLL
      for (int m = 0; m < M; ++m) s[m] = S::set(a[m]);
      LSTMX_UNROLL
      for (int v = 0; v < V; ++v) {
        const typename S::Vec bv = v + 1 < V ? S::load(b[v] + row) : load_lanes<S>(b[v] + row, t.lanes);
        LSTMX_UNROLL
        for (int m = 0; m < M; ++m) acc[m][v] = S::fma(s[m], bv, acc[m][v]);
      }
    }
  }
  LSTMX_UNROLL
  for (int m = 0; m < M; ++m) {
    LSTMX_UNROLL
    for (int v = 0; v < V; ++v) {
      RealOf<S>* c = t.c + m * t.c_row + v * W;
      const Index lanes = v + 1 < V ? W : t.lanes;
      store_lanes<S>(c, S::add(load_lanes<S>(c, lanes), acc[m][v]), lanes);
    }
  }
}

// c[0..V) += the sums of the columns of b over `count` rows, at most row_block of them
template <class S, int V>
LSTMX_INLINE void add_column_sums(const RealOf<S>* b, Index b_vector, Index b_row, Index count, RealOf<S>* c,
                                  Index lanes) {
  constexpr int W = S::width;
  typename S::Vec sum[V];
  LSTMX_UNROLL
  for (int v = 0; v < V; ++v) sum[v] = S::set(0.0f);
  for (Index k = 0; k < count; ++k, b += b_row) {
    LSTMX_UNROLL
    for (int v = 0; v + 1 < V; ++v) sum[v] = S::add(sum[v], S::load(b + v * b_vector));
    sum[V - 1] = S::add(sum[V - 1], load_lanes<S>(b + (V - 1) * b_vector, lanes));
  }
  LSTMX_UNROLL
  for (int v = 0; v < V; ++v) {
    const Index n = v + 1 < V ? W : lanes;
    store_lanes<S>(c + v * W, S::add(load_lanes<S>(c + v * W, n), sum[v]), n);
  }
}

// The tile function for run-time sizes, 1 <= rows <= tile_rows[V].
template <class S, int V, int M, int... distances>
LSTMX_INLINE void run_product(Index rows, const ProductTile<RealOf<S>>& t) {
  if (rows == M) return product_tile<S, M, V, distances...>(t);
  if constexpr (M > 1) run_product<S, V, M - 1, distances...>(rows, t);
}

template <class S, int V, bool packed = false, int M = S::tile_rows[V]>
LSTMX_INLINE void run_outer(Index rows, const OuterTile<RealOf<S>>& t) {
  if (rows == M) return outer_tile<S, M, V, packed>(t);
  if constexpr (M > 1) run_outer<S, V, packed, M - 1>(rows, t);
}

// body<n>() of a run-time n, 1 to 4: vectors, quads or columns
template <class Body>
LSTMX_INLINE void with_constant(Index n, const Body& body) {
  switch (n) {
    case 1:
      return body.template operator()<1>();
    case 2:
      return body.template operator()<2>();
    case 3:
      return body.template operator()<3>();
    default:
      return body.template operator()<4>();
  }
}

// The same up to the most that a tile of X has.
template <class X, class Body>
LSTMX_INLINE void with_vectors(Index n, const Body& body) {
  if constexpr (sizeof(X::tile_rows) == 2 * sizeof(int)) {
    body.template operator()<1>();
  } else {
    with_constant(n, body);
  }
}

// For the rows [begin, end): to(r)[columns] = init + from(r)[depth] * packed, as pack_columns or pack_transposed by
// groups of columns left it; init: whole vectors, or null for zeros.
template <class S, class From, class To>
LSTMX_INLINE void multiply_rows(Index begin, Index end, Index depth, const RealOf<S>* packed, const RealOf<S>* init,
                                Index columns, const From& from, const To& to) {
  for_column_groups<S>(columns, [&](Index first, Index vectors, Index lanes) {
    with_constant(vectors, [&]<int V>() {
      ProductTile<RealOf<S>> tile;
      tile.operand[0].segment = 0;
      tile.operand[0].depth = depth;
      tile.operand[0].count = 1;
      tile.operand[1].count = 0;
      tile.panel = packed + first * depth;
      tile.init = init ? init + first : nullptr;
      tile.goes_on = false;
      tile.c_vector = S::width;
      tile.lanes = lanes;
      for_tiles(begin, end, S::tile_rows[V], [&](Index r, Index m) {
        for (Index i = 0; i < m; ++i) {
          tile.operand[0].row[i] = from(r + i);
          tile.c[i] = to(r + i) + first;
        }
        run_product<S, V, S::tile_rows[V], 0, 0>(m, tile);
      });
    });
  });
}

// [0, count) in blocks of row_block: body(first, rows)
template <class Body>
LSTMX_INLINE void for_row_blocks(Index count, const Body& body) {
  for (Index begin = 0; begin < count; begin += row_block)
    body(begin, count - begin < row_block ? count - begin : row_block);
}

// n lanes of a row of a matrix, less those of `mean`, if there is one
template <class S>
LSTMX_INLINE typename S::Vec load_less(const RealOf<S>* row, const RealOf<S>* mean, Index n) {
  const typename S::Vec v = load_lanes<S>(row, n);
  return mean ? S::sub(v, load_lanes<S>(mean, n)) : v;
}

// n of the columns of up to W rows, transposed: v[k][l] = matrix[l][k] for l < rows, 0 beyond; less mean[k], if there
// is one
template <class S>
LSTMX_INLINE void load_transposed(const RealOf<S>* matrix, Index row, Index rows, Index n,
                                  typename S::Vec (&v)[S::width], const RealOf<S>* mean = nullptr) {
  for (Index l = 0; l < S::width; ++l) v[l] = l < rows ? load_less<S>(matrix + l * row, mean, n) : S::set(0.0f);
  S::transpose(v);
}

// out[k][l] = matrix[l][k] for k < depth and l < lanes, then zeros up to `width`; rows `row` and `out_row` numbers
// apart; `mean` as above
template <class S>
LSTMX_INLINE void pack_transposed(const RealOf<S>* matrix, Index row, Index depth, Index lanes, Index width,
                                  RealOf<S>* out, Index out_row, const RealOf<S>* mean = nullptr) {
  constexpr Index W = S::width;
  for (Index l = 0; l < width; l += W) {
    for (Index k = 0; k < depth; k += W) {
      typename S::Vec v[W];
      const Index n = depth - k < W ? depth - k : W;
      load_transposed<S>(matrix + l * row + k, row, lanes - l, n, v, mean ? mean + k : nullptr);
      for (Index i = 0; i < n; ++i) store_lanes<S>(out + (k + i) * out_row + l, v[i], width - l < W ? width - l : W);
    }
  }
}

// Packs a matrix [depth, n] (row stride `row`) for products: for each group of columns, its rows one after the other.
// `order(k)` names the k-th row to pack, -1: zeros; mean(row) points to what is taken from a row, or is null. Returns
// the end of what was written.
template <class S, class Order, class Mean>
LSTMX_INLINE RealOf<S>* pack_columns(const RealOf<S>* matrix, Index row, Index depth, Index n, RealOf<S>* packed,
                                     const Order& order, const Mean& mean) {
  constexpr Index W = S::width;
  for_column_groups<S>(n, [&](Index first, Index vectors, Index lanes) {
    for (Index k = 0; k < depth; ++k) {
      const Index from = order(k);
      const RealOf<S>* source = matrix + from * row + first;
      const RealOf<S>* less = from < 0 ? nullptr : mean(from);
      for (Index v = 0; v < vectors; ++v, packed += W) {
        const Index now = v + 1 < vectors ? W : lanes;
        S::store(packed,
                 from < 0 ? S::set(0.0f) : load_less<S>(source + v * W, less ? less + first + v * W : nullptr, now));
      }
    }
  });
  return packed;
}

template <class S, class Order>
LSTMX_INLINE RealOf<S>* pack_columns(const RealOf<S>* matrix, Index row, Index depth, Index n, RealOf<S>* packed,
                                     const Order& order) {
  return pack_columns<S>(matrix, row, depth, n, packed, order, [](Index) -> const RealOf<S>* { return nullptr; });
}

}  // namespace
