// Products by an engine (kernels.h): operands in tiles of bf16 numbers, each float32 number given as the sum of its
// parts.
//   rows      [tile of 16 rows][block of 32 k][part][16 rows][32]
//   columns   [tile of 16 columns][block of 32 k][part][16][16 columns][2]
// In a block, number k stands beside number k + 16 (k < 16), so that a pair is a shift and a merge of two vectors.
//
// Range. Parts are exact but for a relative error of 2^-9, 2^-17 or 2^-25, if a number is neither too large for bf16
// nor so small that its last part would be denormal. What counts is the largest magnitude along k, of a row or of a
// column: with it in [least, most], whatever of smaller numbers is lost is nothing beside it. What is outside goes to
// the multiply-add units instead; Inf and NaN are, too.
#pragma once

namespace {

// whether a vector type can make parts; only then engines are used
template <class S>
constexpr bool makes_parts = requires(typename S::Vec v) { S::paired_bf16(v, v); };

template <class S>
struct Tiles {
  using Vec = typename S::Vec;
  static constexpr Index side = 16, depth = 32, size = lstmx::tile_size;
  static_assert(size == side * depth);
  static constexpr Index floats = size * sizeof(Bf16) / sizeof(float);  // that a tile takes
  static constexpr float least = 7.8886090522101181e-31f;               // 2^-100
  static constexpr float most = 3.3e38f;                                // bf16 rounds more than 3.3895e38 to infinity

  static Index count(Index n) { return (n + side - 1) / side; }
  static Index blocks(Index n) { return (n + depth - 1) / depth; }

  template <class Body>
  LSTMX_INLINE void with_parts(int parts, const Body& body) {
    if (parts == 1) return body.template operator()<1>();
    if (parts == 2) return body.template operator()<2>();
    body.template operator()<3>();
  }

  // the parts of two vectors, paired; part p goes to pairs[p]
  template <int parts>
  LSTMX_INLINE void pair(Vec low, Vec high, Vec (&pairs)[parts]) {
    LSTMX_UNROLL
    for (int p = 0; p < parts; ++p) {
      const Vec a = S::rounded_bf16(low), b = S::rounded_bf16(high);
      pairs[p] = S::paired_bf16(a, b);
      low = S::sub(low, a);
      high = S::sub(high, b);
    }
  }

  LSTMX_INLINE void store(Bf16* to, Vec v) { S::store(reinterpret_cast<float*>(to), v); }

  // Blocks [begin, end) of `count` rows, of `all` that a tile of rows has; load(row, block, low, high) reads 32
  // numbers. unfit[row] is set where a row is out of range, and never cleared.
  template <int parts, class Load>
  static void split_rows(Index count, Index begin, Index end, Index all, Bf16* to, unsigned char* unfit,
                         const Load& load) {
    for (Index r = 0; r < count; ++r) {
      Bf16* row = to + (r / side * all + begin) * parts * size + r % side * depth;
      Vec largest = S::set(0.0f);
      for (Index k = begin; k < end; ++k, row += parts * size) {
        Vec low, high, pairs[parts];
        load(r, k, low, high);
        largest = S::larger_magnitude(S::larger_magnitude(largest, low), high);
        pair<parts>(low, high, pairs);
        LSTMX_UNROLL
        for (int p = 0; p < parts; ++p) store(row + p * size, pairs[p]);
      }
      const float magnitude = S::largest_magnitude(largest);
      if (magnitude != 0.0f && !(magnitude >= least && magnitude <= most)) unfit[r] = 1;
    }
  }

  // the same of dense rows of n numbers; the first of their blocks is `begin`
  template <int parts, class Row>
  static void split_dense_rows(Index count, Index n, Index begin, Index all, Bf16* to, unsigned char* unfit,
                               const Row& row) {
    const Index end = begin + blocks(n);
    split_rows<parts>(count, begin, end, all, to, unfit, [&](Index r, Index k, Vec& low, Vec& high) {
      const Index first = (k - begin) * depth, left = n - first;
      const auto* from = row(r) + first;
      if (left >= depth) {
        low = S::load(from);
        high = S::load(from + side);
      } else {
        low = S::load_n(from, left < side ? left : side);
        high = left > side ? S::load_n(from + side, left - side) : S::set(0.0f);
      }
    });
  }

  // A tile of columns, of n rows k; load(k) reads 16 numbers. False: one of the columns is out of range.
  template <int parts, class Load>
  static bool split_columns(Index n, Bf16* to, const Load& load) {
    return for_pairs<parts>(n, load, [&](Index k, Index p, const Vec(&pairs)[parts]) {
      for (int i = 0; i < parts; ++i) store(to + (k * parts + i) * size + p * depth, pairs[i]);
    });
  }

  // The same, transposed: the columns become the rows of a tile.
  template <int parts, class Load>
  static bool split_transposed(Index n, Bf16* to, const Load& load) {
    Vec v[parts][side];
    return for_pairs<parts>(n, load, [&](Index k, Index p, const Vec(&pairs)[parts]) {
      for (int i = 0; i < parts; ++i) v[i][p] = pairs[i];
      if (p + 1 < side) return;
      for (int i = 0; i < parts; ++i) {
        S::transpose(v[i]);
        for (Index r = 0; r < side; ++r) store(to + (k * parts + i) * size + r * depth, v[i][r]);
      }
    });
  }

  // The product of `rows` split rows and the tiles `columns`; a and b begin at the first of `blocks` blocks, and tiles
  // lie a_tile and b_tile tiles apart. write(first row, rows, tile of columns, c): of each result, c being [16][16].
  template <class Write>
  static void multiply(const Engine& engine, int parts, const Bf16* a, Index a_tile, Index rows, const Bf16* b,
                       Index b_tile, Index blocks, const Range& columns, const Write& write) {
    alignas(64) float c[4 * side * side];
    TileProduct t;
    t.blocks = blocks;
    t.c = c;
    for (Index group = columns.begin; group < columns.end; group += 4) {
      const Index last = columns.end < group + 4 ? columns.end : group + 4;
      for (Index r = 0; r < rows; r += 2 * side) {
        t.rows = rows - r < 2 * side ? rows - r : 2 * side;
        const Index tall = t.rows > side ? 2 : 1, wide = t.rows > side ? 2 : 4;
        for (Index i = 0; i < tall; ++i) t.a[i] = a + (r / side + i) * a_tile * parts * size;
        for (Index n = group; n < last; n += wide) {
          for (Index j = 0; j < wide; ++j)
            t.b[j] = b + (n + j < columns.end ? n + j : columns.end - 1) * b_tile * parts * size;
          engine.multiply[parts - 1](t);
          for (Index i = 0; i < tall; ++i) {
            const Index first = r + i * side, count = rows - first < side ? rows - first : side;
            for (Index j = 0; j < wide && n + j < last; ++j)
              write(first, count, n + j, c + (i * wide + j) * side * side);
          }
        }
      }
    }
  }

  // body(row) for those of n rows that are out of range
  template <class Body>
  static void for_unfit(const unsigned char* unfit, Index n, const Body& body) {
    for (Index r = 0; r < n; ++r)
      if (unfit[r] != 0) body(r);
  }

 private:
  template <int parts, class Load, class Body>
  static bool for_pairs(Index n, const Load& load, const Body& body) {
    Vec largest = S::set(0.0f);
    const auto read = [&](Index k) { return k < n ? load(k) : S::set(0.0f); };
    for (Index k = 0; k < blocks(n); ++k) {
      for (Index p = 0; p < side; ++p) {
        const Vec low = read(k * depth + p), high = read(k * depth + side + p);
        largest = S::larger_magnitude(S::larger_magnitude(largest, low), high);
        Vec pairs[parts];
        pair<parts>(low, high, pairs);
        body(k, p, pairs);
      }
    }
    return S::outside(largest, least, most) == 0;
  }
};

}  // namespace
