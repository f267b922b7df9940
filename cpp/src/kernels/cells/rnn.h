// The plain recurrent cell (Elman 1990), h = f(W x + U h + b), for comparison with the others. It takes one gate of the
// four that the layout has; the rest are zeros, so that it costs as much as an LSTM. It has no c.
#pragma once

namespace {

template <class S>
struct RnnCell {
  using Real = typename S::Real;
  using Vec = typename S::Vec;
  using Inputs = CellInputs<S, RnnCell>;
  static constexpr bool staged = true;
  static constexpr int gates = 4;
  static constexpr Index gate_rows = 1;
  static constexpr Index ih_gate[gates] = {0, -1, -1, -1}, hh_gate[gates] = {0, -1, -1, -1};
  static constexpr int unit_params = 0;
  static constexpr bool normalizes = false;

  static const Real* unit_param(const RecurrentWeights<Real>&, int, Index) { return nullptr; }
  static Real* unit_gradient(const RecurrentGradients<Real>&, int, Index) { return nullptr; }
  static Range params_read(const StagedInputs<Real>&) { return {0, 0}; }

  LSTMX_INLINE void forward(const VariantOptions* options, Vec (&gate)[gates], const Inputs& in, Vec& c, Vec& h) {
    h = gate[0] = Functions<S>::apply(options->output, gate[0]);
    if (in.keeps_h) h = S::fma(in.keep_h, in.h, S::mul(S::sub(S::set(1.0f), in.keep_h), h));
    c = S::set(0.0f);
  }

  LSTMX_INLINE void backward(const VariantOptions* options, Vec (&gate)[gates], const Inputs& in, Vec dh, Vec& dc,
                             Vec& dh_prev, Vec (&)[1], Vec&) {
    if (in.keeps_h) {
      dh_prev = S::mul(in.keep_h, dh);
      dh = S::mul(S::sub(S::set(1.0f), in.keep_h), dh);
    }
    gate[0] = S::mul(dh, Functions<S>::slope(options->output, gate[0]));
    gate[1] = gate[2] = gate[3] = dc = S::set(0.0f);
  }
};

}  // namespace
