// Optimiser steps over a model's flat parameters: one call a step, a segment for each run of parameters with one decay.
// Beside them the sums that training asks for at every step: the squared error, the norm of the gradients.
#include <algorithm>
#include <cmath>

#include "../kernels/dispatch.h"
#include "arrays.h"

namespace lstmx::bindings {
namespace {

using Segments = py::array_t<std::int64_t, py::array::c_style>;
using Decays = py::array_t<double, py::array::c_style>;

// The function for the dtype of its first argument, float32 if it is neither.
template <class Result, class First, class... Rest>
auto by_dtype(Result (*single)(First, Rest...), Result (*of_doubles)(First, Rest...)) {
  return [=](First first, Rest... rest) {
    const bool is_double = py::isinstance<py::array_t<double, 0>>(first);
    return (is_double ? of_doubles : single)(first, std::forward<Rest>(rest)...);
  };
}

// segments [n,2] within [0, size), decays [n]
void check_segments(const Segments& segments, const Decays& decays, Index size) {
  if (segments.ndim() != 2 || segments.shape(1) != 2) refuse("segments", "shape (n, 2)");
  if (decays.ndim() != 1 || decays.shape(0) != segments.shape(0)) refuse("decays", "one number a segment");
  for (Index s = 0; s < segments.shape(0); ++s) {
    const std::int64_t start = segments.at(s, 0), stop = segments.at(s, 1);
    if (start < 0 || stop < start || stop > size) refuse("segments", "0 <= start <= stop <= " + std::to_string(size));
  }
}

template <class Real>
void sgd_step(const py::array& params, const py::array& grads, const Optional& velocity, const Segments& segments,
              const Decays& decays, double lr, double momentum, bool nesterov, double grad_scale) {
  const Index n = Array<Real>("params", params, 1, Access::write).shape(0);
  check_segments(segments, decays, n);
  SgdStep<Real> all{};
  all.params = dense_output<Real>("params", params, {n});
  all.grads = dense_input<Real>("grads", grads, {n});
  all.velocity = dense_output<Real>("velocity", velocity, {n});
  all.lr = static_cast<Real>(lr);
  all.momentum = static_cast<Real>(momentum);
  all.grad_scale = static_cast<Real>(grad_scale);
  all.nesterov = nesterov;
  const OptimizerKernels<Real>& kernels = active_target().of<Real>().optimizer;
  for (Index s = 0; s < segments.shape(0); ++s) {
    const Index start = segments.at(s, 0);
    SgdStep<Real> step = all;
    step.params += start;
    step.grads += start;
    if (step.velocity) step.velocity += start;
    step.n = segments.at(s, 1) - start;
    step.decay = static_cast<Real>(decays.at(s));
    kernels.sgd(step);
  }
}

template <class Real>
void adam_step(const py::array& params, const py::array& grads, const py::array& m, const py::array& v,
               const Segments& segments, const Decays& decays, double lr, double beta1, double beta2, double eps,
               std::int64_t step_number, bool decoupled, double grad_scale) {
  const Index n = Array<Real>("params", params, 1, Access::write).shape(0);
  check_segments(segments, decays, n);
  if (step_number < 1) refuse("step", "at least 1");
  AdamStep<Real> all{};
  all.params = dense_output<Real>("params", params, {n});
  all.grads = dense_input<Real>("grads", grads, {n});
  all.m = dense_output<Real>("m", m, {n});
  all.v = dense_output<Real>("v", v, {n});
  all.beta1 = static_cast<Real>(beta1);
  all.beta2 = static_cast<Real>(beta2);
  all.rest1 = static_cast<Real>(1.0 - beta1);
  all.rest2 = static_cast<Real>(1.0 - beta2);
  all.eps = static_cast<Real>(eps);
  all.step_size = static_cast<Real>(lr / (1.0 - std::pow(beta1, static_cast<double>(step_number))));
  all.root_bias = static_cast<Real>(std::sqrt(1.0 - std::pow(beta2, static_cast<double>(step_number))));
  all.grad_scale = static_cast<Real>(grad_scale);
  const OptimizerKernels<Real>& kernels = active_target().of<Real>().optimizer;
  for (Index s = 0; s < segments.shape(0); ++s) {
    const Index start = segments.at(s, 0);
    const double decay = decays.at(s);
    AdamStep<Real> step = all;
    step.params += start;
    step.grads += start;
    step.m += start;
    step.v += start;
    step.n = segments.at(s, 1) - start;
    step.l2 = decoupled ? Real(0) : static_cast<Real>(decay);
    step.shrink = decoupled ? static_cast<Real>(1.0 - lr * decay) : Real(1);
    kernels.adam(step);
  }
}

// in four chains, so that the additions do not wait for each other
template <class Real>
double sum_of_squares(const Real* p, Index n) {
  double sums[4] = {};
  const Index whole = n / 4 * 4;
  for (Index k = 0; k < whole; k += 4) {
    for (int j = 0; j < 4; ++j) sums[j] += static_cast<double>(p[k + j]) * p[k + j];
  }
  for (Index k = whole; k < n; ++k) sums[0] += static_cast<double>(p[k]) * p[k];
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

template <class Real>
double array_sum_of_squares(const py::array& x) {
  const Array<Real> flat("x", x, 1, Access::read);
  return sum_of_squares(flat.data(), flat.shape(0));
}

// The sum of (pred - target)^2 over `divisor`, and its gradient by pred. None where an argument would have to be
// converted, broadcast or refused, which is Python's business.
template <class Real>
py::object squared_error(py::handle pred, py::handle target, const std::string& divisor) {
  if (!is_dense<Real>(pred) || !is_dense<Real>(target)) return py::none();
  const auto p = py::reinterpret_borrow<py::array>(pred), t = py::reinterpret_borrow<py::array>(target);
  if (p.ndim() == 0 || p.ndim() != t.ndim() || !std::equal(p.shape(), p.shape() + p.ndim(), t.shape()))
    return py::none();
  const Index n = p.size(), count = divisor == "elements" ? n : divisor == "batch" ? p.shape(0) : 1;
  py::array_t<Real> gradient(std::vector<Index>(p.shape(), p.shape() + p.ndim()));
  Real* error = gradient.mutable_data();
  const Real *from = static_cast<const Real*>(p.data()), *truth = static_cast<const Real*>(t.data());
  for (Index k = 0; k < n; ++k) error[k] = from[k] - truth[k];
  const double sum = sum_of_squares(error, n);
  const auto factor = static_cast<Real>(count ? 2.0 / static_cast<double>(count) : 0.0);
  for (Index k = 0; k < n; ++k) error[k] *= factor;
  return py::make_tuple(count ? sum / static_cast<double>(count) : 0.0, std::move(gradient));
}

}  // namespace

void bind_optimizers(py::module_& m) {
  using py::arg;
  m.def("sgd_step", by_dtype(&sgd_step<float>, &sgd_step<double>), arg("params"), arg("grads"), arg("velocity"),
        arg("segments"), arg("decays"), arg("lr"), arg("momentum"), arg("nesterov"), arg("grad_scale"));
  m.def("adam_step", by_dtype(&adam_step<float>, &adam_step<double>), arg("params"), arg("grads"), arg("m"), arg("v"),
        arg("segments"), arg("decays"), arg("lr"), arg("beta1"), arg("beta2"), arg("eps"), arg("step"),
        arg("decoupled"), arg("grad_scale"));
  m.def("sum_of_squares", by_dtype(&array_sum_of_squares<float>, &array_sum_of_squares<double>), arg("x"));
  m.def("squared_error", by_dtype(&squared_error<float>, &squared_error<double>), arg("pred"), arg("target"),
        arg("divisor"));
}

}  // namespace lstmx::bindings
