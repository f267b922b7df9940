// The LSTM cell with what was added to it over time, in any combination: peepholes (Gers, Schraudolph and Schmidhuber
// 2002), a coupled input and forget gate (Greff et al. 2017), clipping, other functions than sigmoid and tanh, zoneout
// (Krueger et al. 2017), normalization (Ba et al. 2016, Cooijmans et al. 2017), whose statistics are
// generic/normalize.h's. Only values of the functions are kept, so that derivatives are given in terms of them.
#pragma once

namespace {

template <class S>
struct VariantCell {
  using Real = typename S::Real;
  using Vec = typename S::Vec;
  using Inputs = CellInputs<S, VariantCell>;
  static constexpr bool staged = true;
  static constexpr int gates = 4;        // i f g o
  static constexpr Index gate_rows = 4;  // blocks of H rows in the weights, and where the gates' are; -1: nowhere
  static constexpr Index ih_gate[gates] = {0, 1, 2, 3}, hh_gate[gates] = {0, 1, 2, 3};
  static constexpr int unit_params = 5;  // peepholes into i f o; gain and bias of the normalized c
  static constexpr bool normalizes = true;

  static const Real* unit_param(const RecurrentWeights<Real>& w, int e, Index H) {
    if (e < 3) return w.weight_ch ? w.weight_ch + e * H : nullptr;
    return e == 3 ? w.gain_c : w.bias_c;
  }
  static Real* unit_gradient(const RecurrentGradients<Real>& d, int e, Index H) {
    return e < 3 && d.weight_ch ? d.weight_ch + e * H : nullptr;  // the others come with the normalization
  }
  static bool normalizes_now(const VariantOptions& o) { return o.layer_norm || o.batch_norm; }
  static Range params_read(const StagedInputs<Real>& staged_inputs) {
    const VariantOptions& o = *staged_inputs.options;
    return {o.peepholes ? 0 : 3, normalizes_now(o) ? 5 : 3};
  }

  // gate: pre-activations in, activated gates out; c, h: after the step. Normalizing h is what is to be normalized,
  // and `output` makes h.
  LSTMX_INLINE void forward(const VariantOptions* options, Vec (&gate)[gates], const Inputs& in, Vec& c, Vec& h) {
    const VariantOptions& o = *options;
    // 1. i, f, g; peepholes from c before
    if (o.peepholes) {
      gate[0] = S::fma(in.unit_param[0], in.c, gate[0]);
      gate[1] = S::fma(in.unit_param[1], in.c, gate[1]);
    }
    Vec both[2] = {gate[0], gate[1]};
    value(o, o.gate, both);
    gate[0] = both[0];
    gate[1] = o.coupled ? S::sub(one(), gate[0]) : both[1];
    gate[2] = value(o, o.candidate, gate[2]);
    // 2. c = f c_prev + i g
    c = new_cell(o, gate, in.c);
    // 3. o; its peephole from c after
    if (o.peepholes) gate[3] = S::fma(in.unit_param[2], c, gate[3]);
    gate[3] = value(o, o.gate, gate[3]);
    // 4. and 5. h = o output(c)
    h = c;
    if (!normalizes_now(o)) h = output(gate[3], value_of(o, c), in);
    if (in.keeps_c) c = mix(in.keep_c, in.c, c);
  }

  // of h's function, which sees c, or gain * normalized + bias
  LSTMX_INLINE Vec value_of(const VariantOptions& o, Vec seen) { return F::apply(o.output, seen); }
  LSTMX_INLINE Vec output(Vec out, Vec value, const Inputs& in) {
    const Vec h = S::mul(out, value);
    return in.keeps_h ? mix(in.keep_h, in.h, h) : h;
  }
  LSTMX_INLINE Vec seen_of(Vec normalized, const Inputs& in) {
    return S::fma(in.unit_param[3], normalized, in.unit_param[4]);
  }

  // what forward made of c, to be normalized or seen by h's function
  LSTMX_INLINE Vec cell_of(const VariantOptions& o, const Vec (&gate)[gates], const Inputs& in) {
    return new_cell(o, gate, in.c);
  }

  // gate: activated gates in, gradients of the pre-activations out; dc: of c in, of c before out; dh_prev: what reaches
  // h before other than through weight_hh; d_param: of the unit's parameters, by this row; h: what forward made in step
  // 4. Normalizing, the two halves are called one by one.
  LSTMX_INLINE void backward(const VariantOptions* options, Vec (&gate)[gates], const Inputs& in, Vec dh, Vec& dc,
                             Vec& dh_prev, Vec (&d_param)[unit_params], Vec& h) {
    const Vec c = new_cell(*options, gate, in.c);
    const Vec d_seen = output_back(*options, gate[3], value_of(*options, c), in, dh, dh_prev, h);
    cell_back(*options, gate, in, d_seen, dc, d_param);
  }

  // 5. and 4. and the gate of 3.: returns the gradient by what h's function sees
  LSTMX_INLINE Vec output_back(const VariantOptions& o, Vec& out, Vec value_c, const Inputs& in, Vec dh, Vec& dh_prev,
                               Vec& h) {
    h = S::mul(out, value_c);
    if (in.keeps_h) {
      dh_prev = S::mul(in.keep_h, dh);
      dh = S::mul(S::sub(one(), in.keep_h), dh);
    }
    const Vec d_seen = S::mul(S::mul(dh, out), F::slope(o.output, value_c));
    out = S::mul(S::mul(dh, value_c), slope(o, o.gate, out));
    return d_seen;
  }

  // the others, after it; d_c: by c through h
  LSTMX_INLINE void cell_back(const VariantOptions& o, Vec (&gate)[gates], const Inputs& in, Vec d_c, Vec& dc,
                              Vec (&d_param)[unit_params]) {
    const Vec i = gate[0], f = gate[1], g = gate[2], c = new_cell(o, gate, in.c);
    // 5.
    Vec dc_prev = S::set(0.0f);
    if (in.keeps_c) {
      dc_prev = S::mul(in.keep_c, dc);
      dc = S::mul(S::sub(one(), in.keep_c), dc);
    }
    // 4. and 3.
    dc = S::add(dc, d_c);
    if (o.peepholes) {
      dc = S::fma(gate[3], in.unit_param[2], dc);
      d_param[2] = S::mul(gate[3], c);
    }
    // 2.
    if (o.cell_clip < limit) dc = S::mul(dc, F::within(c, S::set(-o.cell_clip), S::set(o.cell_clip)));
    dc_prev = S::fma(dc, f, dc_prev);
    Vec d_i = S::mul(dc, g), d_f = S::mul(dc, in.c);
    if (o.coupled) {
      d_i = S::sub(d_i, d_f);
      d_f = S::set(0.0f);
    }
    // 1.
    gate[0] = S::mul(d_i, slope(o, o.gate, i));
    gate[1] = S::mul(d_f, slope(o, o.gate, f));
    gate[2] = S::mul(S::mul(dc, i), slope(o, o.candidate, g));
    if (o.peepholes) {
      dc_prev = S::fma(gate[0], in.unit_param[0], S::fma(gate[1], in.unit_param[1], dc_prev));
      d_param[0] = S::mul(gate[0], in.c);
      d_param[1] = S::mul(gate[1], in.c);
    }
    dc = dc_prev;
  }

 private:
  using F = Functions<S>;
  static constexpr double limit = __builtin_inf();  // a clip below it is one
  LSTMX_INLINE Vec one() { return S::set(1.0f); }
  LSTMX_INLINE Vec mix(Vec keep, Vec before, Vec after) {
    return S::fma(keep, before, S::mul(S::sub(one(), keep), after));
  }
  LSTMX_INLINE Vec clip(Vec x, double most) { return S::min(S::set(most), S::max(S::set(-most), x)); }
  LSTMX_INLINE Vec new_cell(const VariantOptions& o, const Vec (&gate)[gates], Vec c_prev) {
    const Vec c = S::fma(gate[1], c_prev, S::mul(gate[0], gate[2]));
    return o.cell_clip < limit ? clip(c, o.cell_clip) : c;
  }

  LSTMX_INLINE Vec value(const VariantOptions& o, const Activation& a, Vec x) {
    Vec v[1] = {x};
    value(o, a, v);
    return v[0];
  }

  // of what is clipped first
  template <int N>
  LSTMX_INLINE void value(const VariantOptions& o, const Activation& a, Vec (&v)[N]) {
    if (o.gate_clip < limit) {
      for (Vec& x : v) x = clip(x, o.gate_clip);
    }
    F::apply(a, v);
  }

  // the derivative where the function's value is y; 0 where its argument was clipped
  LSTMX_INLINE Vec slope(const VariantOptions& o, const Activation& a, Vec y) {
    if (!(o.gate_clip < limit)) return F::slope(a, y);
    Vec ends[2] = {S::set(-o.gate_clip), S::set(o.gate_clip)};
    F::apply(a, ends);
    return S::mul(F::slope(a, y), F::within(y, S::min(ends[0], ends[1]), S::max(ends[0], ends[1])));
  }
};

}  // namespace
