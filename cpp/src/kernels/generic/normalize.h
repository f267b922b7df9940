// Normalization inside the recurrence, of the products with x and with h and of c: over a row's units, gate by gate
// (layer normalization, Ba, Kiros and Hinton 2016), or over the rows of a step (batch normalization, Cooijmans et al.
// 2017). Each comes out with mean 0 and variance 1; gains and biases are applied by whoever reads them. A statistic
// takes two passes: the mean, then the squares of what is left.
#pragma once

namespace {

template <class S>
struct Normalize : Layout<S> {
  using L = Layout<S>;
  using Real = typename S::Real;
  using Vec = typename S::Vec;
  using L::W, L::G, L::PW, L::QW;

  // A number for each gate of a row, also as the vectors of a quad have them.
  struct PerGate {
    Real of[G], quad[QW];

    void spread(Index divisor = 1) {
      for (int g = 0; g < G; ++g) {
        of[g] /= static_cast<Real>(divisor);
        for (int l = 0; l < 4; ++l) quad[g * 4 + l] = of[g];
      }
    }
    // all of them at once
    Vec gates() const { return S::load_n(of, G); }
    void set_gates(Vec v) {
      S::store_n(of, v, G);
      spread();
    }
    Vec at(int index, bool wide) const { return wide ? S::set(of[index]) : S::load(quad + index * W); }
  };

  // body(offset in a plane of `rows` rows, offset in an array by gate and unit, index, wide) for the vectors of a row:
  // of the index-th gate where it is wide, otherwise the index-th of a quad [i f g o], as products leave it
  template <class Body>
  LSTMX_INLINE void for_vectors(Index H, Index rows, Index row, const Body& body) {
    for (Index unit = 0; unit + W <= H; unit += W) {
      LSTMX_UNROLL
      for (int g = 0; g < G; ++g) body(G * unit * rows + row * PW + g * W, G * unit + g * W, g, true);
    }
    for (Index unit = H / W * W; unit < H; unit += 4) {
      LSTMX_UNROLL
      for (int v = 0; v < L::quad_vectors; ++v) body(G * unit * rows + row * QW + v * W, G * unit + v * W, v, false);
    }
  }

  // the mean over units of value(as body above), by gate; lanes beyond H must be 0
  template <class Value>
  LSTMX_INLINE PerGate means(Index H, Index rows, Index row, const Value& value) {
    Vec wide[G], narrow[G];
    for (Vec& v : wide) v = S::set(0);
    for (Vec& v : narrow) v = S::set(0);
    for_vectors(H, rows, row, [&](Index at, Index unit, int index, bool is_wide) {
      Vec& sum = is_wide ? wide[index] : narrow[index];
      sum = S::add(sum, value(at, unit, index, is_wide));
    });
    // the lanes of each gate in fours, as a quad has them
    S::quads_of_gates(wide);
    Real lanes[QW];
    LSTMX_UNROLL
    for (int v = 0; v < L::quad_vectors; ++v) {
      LSTMX_UNROLL
      for (int r = 0; r < L::R; ++r) narrow[v] = S::add(narrow[v], wide[r * L::quad_vectors + v]);
      S::store(lanes + v * W, narrow[v]);
    }
    PerGate mean;
    LSTMX_UNROLL
    for (int g = 0; g < G; ++g) mean.of[g] = (lanes[g * 4] + lanes[g * 4 + 1]) + (lanes[g * 4 + 2] + lanes[g * 4 + 3]);
    mean.spread(H);
    return mean;
  }

  static constexpr Index together = 8;  // rows whose statistics, long chains each, overlap

  // body(first, count) for rows [0, count) in groups that are worked on together
  template <class Body>
  LSTMX_INLINE void for_groups(Index count, const Body& body) {
    for (Index r = 0; r < count; r += together) body(r, count - r < together ? count - r : together);
  }

  // Up to `together` rows of a plane become normalized; lanes beyond H, where `valid` is 0, become 0. scale(i)[G]: 1 /
  // the deviations of the i-th row.
  template <class Scale>
  static void gates(Real* plane, Index H, Index rows, Index row, Index count, const Real* valid, Real eps,
                    const Scale& scale) {
    PerGate mean[together];
    for (Index i = 0; i < count; ++i)
      mean[i] = means(H, rows, row + i, [&](Index at, Index, int, bool) { return S::load(plane + at); });
    for (Index i = 0; i < count; ++i) {
      for_vectors(H, rows, row + i, [&](Index at, Index unit, int index, bool wide) {
        S::store(plane + at, S::mul(S::sub(S::load(plane + at), mean[i].at(index, wide)), S::load(valid + unit)));
      });
    }
    for (Index i = 0; i < count; ++i) {
      mean[i] = means(H, rows, row + i,
                      [&](Index at, Index, int, bool) { return S::mul(S::load(plane + at), S::load(plane + at)); });
    }
    for (Index i = 0; i < count; ++i) {
      const Vec deviation = S::sqrt(S::add(mean[i].gates(), S::set(eps)));
      mean[i].set_gates(S::div(S::set(1), deviation));
      for (int g = 0; g < G; ++g) scale(i)[g] = mean[i].of[g];
    }
    for (Index i = 0; i < count; ++i) {
      for_vectors(H, rows, row + i, [&](Index at, Index, int index, bool wide) {
        S::store(plane + at, S::mul(S::load(plane + at), mean[i].at(index, wide)));
      });
    }
  }

  // `n`, up to `together` normalized rows, become the gradients by the rows that they were made of; d: those by gain *
  // n; scale(i)[G] as gates() gave it.
  template <class Scale>
  static void gates_back(const Real* d, Real* n, Index H, Index rows, Index row, Index count, const Real* gain,
                         const Scale& scale) {
    const auto scaled = [&](Index at, Index unit) { return S::mul(S::load(d + at), S::load(gain + unit)); };
    PerGate mean[together], along[together];
    for (Index i = 0; i < count; ++i) {
      mean[i] = means(H, rows, row + i, [&](Index at, Index unit, int, bool) { return scaled(at, unit); });
      along[i] = means(H, rows, row + i,
                       [&](Index at, Index unit, int, bool) { return S::mul(scaled(at, unit), S::load(n + at)); });
    }
    for (Index i = 0; i < count; ++i) {
      PerGate inverse;
      for (int g = 0; g < G; ++g) inverse.of[g] = scale(i)[g];
      inverse.spread();
      for_vectors(H, rows, row + i, [&](Index at, Index unit, int index, bool wide) {
        const Vec rest = S::sub(scaled(at, unit), mean[i].at(index, wide));
        const Vec left = S::fnma(S::load(n + at), along[i].at(index, wide), rest);
        S::store(n + at, S::mul(left, inverse.at(index, wide)));
      });
    }
  }

  // A dense row of H numbers becomes normalized; returns 1 / its deviation.
  static Real units(Real* row, Index H, Real eps) {
    const Vec mean = S::set(mean_of(H, [&](Index u, Index lanes) { return load_lanes<S>(row + u, lanes); }));
    for_units(
        H, [&](Index u, Index lanes) { store_lanes<S>(row + u, S::sub(load_lanes<S>(row + u, lanes), mean), lanes); });
    const Real variance = mean_of(H, [&](Index u, Index lanes) {
      const Vec rest = load_lanes<S>(row + u, lanes);
      return S::mul(rest, rest);
    });
    const Real scale = inverse_deviation(variance, eps);
    for_units(H, [&](Index u, Index lanes) {
      store_lanes<S>(row + u, S::mul(load_lanes<S>(row + u, lanes), S::set(scale)), lanes);
    });
    return scale;
  }

  // d, the gradient by the normalized row n, becomes that by the row that it was made of.
  static void units_back(Real* d, const Real* n, Index H, Real scale) {
    const auto at = [](const Real* p, Index u, Index lanes) { return load_lanes<S>(p + u, lanes); };
    const Vec mean = S::set(mean_of(H, [&](Index u, Index lanes) { return at(d, u, lanes); }));
    const Vec along =
        S::set(mean_of(H, [&](Index u, Index lanes) { return S::mul(at(d, u, lanes), at(n, u, lanes)); }));
    for_units(H, [&](Index u, Index lanes) {
      const Vec left = S::fnma(at(n, u, lanes), along, S::sub(at(d, u, lanes), mean));
      store_lanes<S>(d + u, S::mul(left, S::set(scale)), lanes);
    });
  }

  // ---- over rows

  // W columns of `count` rows, `distance` apart, become normalized: with the statistics given, or with their own, which
  // are written there. Returns 1 / their deviations.
  LSTMX_INLINE Vec columns(Real* first, Index distance, Index count, bool given, Vec& mean, Vec& variance, Real eps) {
    const auto mean_of_rows = [&](const auto& value) {
      Vec sum = S::set(0);
      for (Index r = 0; r < count; ++r) sum = S::add(sum, value(S::load(first + r * distance)));
      return S::div(sum, S::set(static_cast<Real>(count)));
    };
    if (!given) {
      mean = mean_of_rows([](Vec x) { return x; });
      variance = mean_of_rows([&](Vec x) { return S::mul(S::sub(x, mean), S::sub(x, mean)); });
    }
    const Vec scale = S::div(S::set(1), S::sqrt(S::add(variance, S::set(eps))));
    for (Index r = 0; r < count; ++r) {
      Real* x = first + r * distance;
      S::store(x, S::mul(S::sub(S::load(x), mean), scale));
    }
    return scale;
  }

  // `to` (d or n itself): the gradient by the columns that became n, d being that by gain * n.
  LSTMX_INLINE void columns_back(const Real* d, Vec gain, const Real* n, Real* to, Index distance, Index count,
                                 bool given, Vec scale) {
    Vec mean = S::set(0), along = mean;
    for (Index r = 0; !given && r < count; ++r) {
      const Vec scaled = S::mul(S::load(d + r * distance), gain);
      mean = S::add(mean, scaled);
      along = S::fma(scaled, S::load(n + r * distance), along);
    }
    mean = S::div(mean, S::set(static_cast<Real>(count)));
    along = S::div(along, S::set(static_cast<Real>(count)));
    for (Index r = 0; r < count; ++r) {
      const Vec rest = S::sub(S::mul(S::load(d + r * distance), gain), mean);
      S::store(to + r * distance, S::mul(S::fnma(S::load(n + r * distance), along, rest), scale));
    }
  }

  // body(offset in a plane, distance of rows, offset by gate and unit, index, unit) for the vectors of the gates of the
  // part's units
  template <class Body>
  LSTMX_INLINE void for_columns_of_gates(Index H, const Part& part, Index rows, Index row, const Body& body) {
    L::for_pieces(H, part.vectors, [&](Index unit, Index, Index) {
      const bool wide = is_wide(H, unit);
      const Index distance = wide ? PW : QW;
      for (int v = 0; v < (wide ? G : L::quad_vectors); ++v)
        body(G * unit * rows + row * distance + v * W, distance, G * unit + v * W, v, unit);
    });
  }

  // a vector of statistics, from and to an array [G * H]
  static Vec read_gates(const Real* from, Index H, Index unit, int index) {
    Real lanes[W];
    for (Index l = 0; l < W; ++l) {
      const Index at = gate_row(H, unit, index, l);
      lanes[l] = at < 0 ? Real(0) : from[at];
    }
    return S::load(lanes);
  }
  static void write_gates(Real* to, Vec v, Index H, Index unit, int index) {
    Real lanes[W];
    S::store(lanes, v);
    for (Index l = 0; l < W; ++l) {
      const Index at = gate_row(H, unit, index, l);
      if (at >= 0) to[at] = lanes[l];
    }
  }

  // body(first unit, valid units) for the vectors of the part's units, in dense rows
  template <class Body>
  LSTMX_INLINE void for_columns_of_units(Index H, const Part& part, const Body& body) {
    for (Index v = part.vectors.begin; v < part.vectors.end; ++v) body(v * W, H - v * W < W ? H - v * W : W);
  }

  // running statistics at a step: of gates, of c; false: there are none
  static bool read_statistics(const StagedInputs<Real>& staged, int side, Index t, Index H, Index unit, int index,
                              Vec& mean, Vec& variance) {
    mean = variance = S::set(0);
    if (staged.running.steps == 0) return false;
    const Index s = t < staged.running.steps ? t : staged.running.steps - 1;
    if (side < 2) {
      mean = read_gates(staged.running.mean[side] + s * G * H, H, unit, index);
      variance = read_gates(staged.running.variance[side] + s * G * H, H, unit, index);
    } else {
      const Index lanes = H - unit < W ? H - unit : W;
      mean = load_lanes<S>(staged.running.mean[2] + s * H + unit, lanes);
      variance = load_lanes<S>(staged.running.variance[2] + s * H + unit, lanes);
    }
    return true;
  }

 private:
  static bool is_wide(Index H, Index unit) { return unit < H / W * W; }

  // where a lane of a vector of gates is in an array [G * H]; -1: it is no unit's
  static Index gate_row(Index H, Index unit, int index, Index lane) {
    const Index at = index * W + lane, width = is_wide(H, unit) ? W : 4, of_unit = unit + at % width;
    return of_unit < H ? at / width * H + of_unit : -1;
  }

  LSTMX_INLINE Real sum_of_lanes(Vec v) {
    Real lanes[W];
    S::store(lanes, v);
    LSTMX_UNROLL
    for (Index half = W / 2; half > 0; half /= 2) {  // a tree, for the additions to overlap
      LSTMX_UNROLL
      for (Index l = 0; l < half; ++l) lanes[l] += lanes[l + half];
    }
    return lanes[0];
  }

  static Real inverse_deviation(Real variance, Real eps) {
    Real lanes[W];
    S::store(lanes, S::div(S::set(1), S::sqrt(S::set(variance + eps))));
    return lanes[0];
  }

  template <class Body>
  LSTMX_INLINE void for_units(Index H, const Body& body) {
    for (Index u = 0; u < H; u += W) body(u, H - u < W ? H - u : W);
  }

  // lanes beyond H are 0 in what is loaded by lanes
  template <class Value>
  LSTMX_INLINE Real mean_of(Index H, const Value& value) {
    Vec total = S::set(0);
    for_units(H, [&](Index u, Index lanes) { total = S::add(total, value(u, lanes)); });
    return sum_of_lanes(total) / static_cast<Real>(H);
  }
};

}  // namespace
