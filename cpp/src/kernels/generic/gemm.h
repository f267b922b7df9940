// Matrix products in register tiles. Two forms carry everything:
//   multiply  C[m][:] += A[m][k] * P[k][:]    a row of C is one chain over k, whatever the tile: bits depend on the row
//   alone outer     C[m][:] += sum_k A[k][m] * B[k][:]    sums over rows, in blocks of row_block
// A tile has M rows and V vectors; Choices::tile_rows says how many rows fit the registers beside V vectors.
#pragma once

namespace {

using lstmx::Index;

constexpr Index row_block = 256;  // rows summed in registers before they are added to the result

// acc[m] += sum_k a[m][k] * panel[k], a panel row being V vectors; returns the panel's end
template <class S, int M, int V>
LSTMX_INLINE const float* multiply(typename S::Vec (&acc)[M][V], const float* const (&a)[M], const float* panel,
                                   Index depth) {
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

// [0, n) columns in balanced groups of at most four vectors: body(first column, vectors, valid lanes of the last
// vector)
template <class S, class Body>
LSTMX_INLINE void for_column_groups(Index n, const Body& body) {
  constexpr Index W = S::width;
  for_tiles(0, (n + W - 1) / W, 4, [&](Index first, Index vectors) {
    const Index rest = n - (first + vectors - 1) * W;
    body(first * W, vectors, rest < W ? rest : W);
  });
}

template <class S>
LSTMX_INLINE typename S::Vec load_lanes(const float* p, Index lanes) {
  return lanes == S::width ? S::load(p) : S::load_n(p, lanes);
}

template <class S>
LSTMX_INLINE void store_lanes(float* p, typename S::Vec a, Index lanes) {
  if (lanes == S::width) {
    S::store(p, a);
  } else {
    S::store_n(p, a, lanes);
  }
}

// Rows of a left operand: `count` segments of `depth` columns, element k of segment s in row r being
// data[r * row + s * segment + k].
struct Run {
  const float* data;
  Index row, segment, depth, count;
};

// acc += [run 0 | run 1] * panel, the panel running on from the one to the other
template <class S, int M, int V>
LSTMX_INLINE void multiply_runs(typename S::Vec (&acc)[M][V], const Run (&runs)[2], const float* panel) {
  for (const Run& run : runs) {
    for (Index s = 0; s < run.count; ++s) {
      const float* a[M];
      LSTMX_UNROLL
      for (int m = 0; m < M; ++m) a[m] = run.data + m * run.row + s * run.segment;
      panel = multiply<S, M, V>(acc, a, panel, run.depth);
    }
  }
}

// One tile of C = init + [run 0 | run 1] * panel.
struct ProductTile {
  Run runs[2];
  const float* panel;
  const float* init;  // V vectors added to every row, or null
  float* c;
  Index c_row;
  Index lanes;  // valid lanes of the last vector
};

template <class S, int M, int V>
__attribute__((noinline)) void product_tile(const ProductTile& t) {
  constexpr int W = S::width;
  typename S::Vec acc[M][V];
  LSTMX_UNROLL
  for (int v = 0; v < V; ++v) {
    const typename S::Vec first = t.init ? S::load(t.init + v * W) : S::set(0.0f);
    LSTMX_UNROLL
    for (int m = 0; m < M; ++m) acc[m][v] = first;
  }
  multiply_runs<S, M, V>(acc, t.runs, t.panel);
  LSTMX_UNROLL
  for (int m = 0; m < M; ++m) {
    LSTMX_UNROLL
    for (int v = 0; v + 1 < V; ++v) S::store(t.c + m * t.c_row + v * W, acc[m][v]);
    store_lanes<S>(t.c + m * t.c_row + (V - 1) * W, acc[m][V - 1], t.lanes);
  }
}

// One tile of C += A^T B over `count` rows, at most row_block of them.
struct OuterTile {
  const float* a;  // element m of row k is a[k * a_row + m]
  Index a_row;
  const float* b;  // V vectors a row
  Index b_row;
  Index count;
  float* c;
  Index c_row;
  Index lanes;  // valid lanes of the last vector, of B and of C
};

template <class S, int M, int V>
__attribute__((noinline)) void outer_tile(const OuterTile& t) {
  constexpr int W = S::width;
  typename S::Vec acc[M][V];
  LSTMX_UNROLL
  for (int m = 0; m < M; ++m) {
    LSTMX_UNROLL
    for (int v = 0; v < V; ++v) acc[m][v] = S::set(0.0f);
  }
  const float *a = t.a, *b = t.b;
  for (Index k = 0; k < t.count; ++k, a += t.a_row, b += t.b_row) {
    if constexpr (V < M || S::registers > 16) {
      typename S::Vec bv[V];
      LSTMX_UNROLL
      for (int v = 0; v + 1 < V; ++v) bv[v] = S::load(b + v * W);
      bv[V - 1] = load_lanes<S>(b + (V - 1) * W, t.lanes);
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
        const typename S::Vec bv = v + 1 < V ? S::load(b + v * W) : load_lanes<S>(b + v * W, t.lanes);
        LSTMX_UNROLL
        for (int m = 0; m < M; ++m) acc[m][v] = S::fma(s[m], bv, acc[m][v]);
      }
    }
  }
  LSTMX_UNROLL
  for (int m = 0; m < M; ++m) {
    LSTMX_UNROLL
    for (int v = 0; v < V; ++v) {
      float* c = t.c + m * t.c_row + v * W;
      const Index lanes = v + 1 < V ? W : t.lanes;
      store_lanes<S>(c, S::add(load_lanes<S>(c, lanes), acc[m][v]), lanes);
    }
  }
}

// The tile function for run-time sizes, 1 <= rows <= tile_rows[V].

template <class S, int V, int M = S::tile_rows[V]>
LSTMX_INLINE void run_product(Index rows, const ProductTile& t) {
  if (rows == M) return product_tile<S, M, V>(t);
  if constexpr (M > 1) run_product<S, V, M - 1>(rows, t);
}

template <class S, int V, int M = S::tile_rows[V]>
LSTMX_INLINE void run_outer(Index rows, const OuterTile& t) {
  if (rows == M) return outer_tile<S, M, V>(t);
  if constexpr (M > 1) run_outer<S, V, M - 1>(rows, t);
}

template <class Body>
LSTMX_INLINE void with_vectors(Index vectors, const Body& body) {
  switch (vectors) {
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

// Packs a matrix [depth, n] (row stride `row`) for products: for each group of columns, its rows one after the other.
// `order(k)` names the k-th row to pack. Returns the end of what was written.
template <class S, class Order>
LSTMX_INLINE float* pack_columns(const float* matrix, Index row, Index depth, Index n, float* packed,
                                 const Order& order) {
  constexpr Index W = S::width;
  for_column_groups<S>(n, [&](Index first, Index vectors, Index lanes) {
    for (Index k = 0; k < depth; ++k) {
      const float* source = matrix + order(k) * row + first;
      for (Index v = 0; v < vectors; ++v, packed += W)
        S::store(packed, load_lanes<S>(source + v * W, v + 1 < vectors ? W : lanes));
    }
  });
  return packed;
}

}  // namespace
