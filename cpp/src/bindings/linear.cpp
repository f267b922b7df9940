// LinearPlan and LinearTape: the affine layer for Python.
#include "../kernels/plan.h"
#include "arrays.h"
#include "settings.h"

namespace lstmx::bindings {
namespace {

template <class Real>
std::unique_ptr<LinearTape<Real>> forward(LinearPlan<Real>& plan, std::int64_t version, const py::array& weight,
                                          const Optional& bias, const py::array& x, const py::array& y, bool training,
                                          int threads) {
  const Index in = plan.in(), out = plan.out();
  const Real* w = dense_input<Real>("weight", weight, {out, in});
  const Real* b = dense_input<Real>("bias", bias, {out});
  const Array<Real> from("x", x, 2, Access::read);
  if (from.shape(1) != in) refuse("x", "shape (*, " + std::to_string(in) + ")");
  const Array<Real> to = Array<Real>("y", y, 2, Access::write).shaped({from.shape(0), out});
  LinearForward<Real> args{};
  args.N = from.shape(0);
  args.x = from.data();
  args.x_row = from.stride(0);
  args.y = to.mutable_data();
  args.y_row = to.stride(0);
  args.threads = check_threads(threads);
  const py::gil_scoped_release nogil;  // the arrays are held by the caller's frame
  return plan.forward(version, w, b, args, training);
}

// The short way for dense x of any number of axes: checks, allocates and computes in one crossing of the border.
// Returns (y, tape or None), or None where x would have to be converted or refused, which is Python's business.
template <class Real>
py::object call_once(LinearPlan<Real>& plan, std::int64_t version, const py::array& weight, const Optional& bias,
                     py::handle x, bool training, int threads) {
  const Index in = plan.in(), out = plan.out();
  if (!is_dense<Real>(x)) return py::none();
  const auto array = py::reinterpret_borrow<py::array>(x);
  const auto last = array.ndim() - 1;
  if (last < 0 || array.shape(last) != in) return py::none();
  std::vector<Index> shape(array.shape(), array.shape() + array.ndim());
  shape.back() = out;
  py::array_t<Real> y(shape);
  const Real* w = dense_input<Real>("weight", weight, {out, in});
  const Real* b = dense_input<Real>("bias", bias, {out});
  LinearForward<Real> args{};
  args.N = y.size() / out;
  args.x = static_cast<const Real*>(array.data());
  args.x_row = in;
  args.y = y.mutable_data();
  args.y_row = out;
  args.threads = check_threads(threads);
  std::unique_ptr<LinearTape<Real>> tape;
  {
    const py::gil_scoped_release nogil;  // the arrays are held by the caller's frame and by this one
    tape = plan.forward(version, w, b, args, training);
  }
  return py::make_tuple(std::move(y), py::cast(std::move(tape)));
}

// The short way back: dx of the shape of x, or None where it is not wanted.
template <class Real>
py::object backward_once(const LinearTape<Real>& tape, const py::array& x, const py::array& dy, bool need_dx,
                         const py::array& d_weight, const Optional& d_bias, int threads) {
  const Index in = tape.in(), out = tape.out(), N = tape.rows();
  if (!is_dense<Real>(x) || x.size() != N * in) refuse("x", "a dense array of " + std::to_string(N * in) + " numbers");
  if (!is_dense<Real>(dy) || dy.size() != N * out)
    refuse("dy", "a dense array of " + std::to_string(N * out) + " numbers");
  LinearBackward<Real> args{};
  args.x = static_cast<const Real*>(x.data());
  args.x_row = in;
  args.dy = static_cast<const Real*>(dy.data());
  args.dy_row = out;
  args.d_weight = dense_output<Real>("d_weight", d_weight, {out, in});
  args.d_bias = dense_output<Real>("d_bias", d_bias, {out});
  args.threads = check_threads(threads);
  py::object dx = py::none();
  if (need_dx) {
    py::array_t<Real> made(std::vector<Index>(x.shape(), x.shape() + x.ndim()));
    args.dx = made.mutable_data();
    args.dx_row = in;
    dx = std::move(made);
  }
  {
    const py::gil_scoped_release nogil;  // the arrays are held by the caller's frame and by this one
    tape.backward(args);
  }
  return dx;
}

template <class Real>
void backward(const LinearTape<Real>& tape, const py::array& x, const py::array& dy, const Optional& dx,
              const py::array& d_weight, const Optional& d_bias, int threads) {
  const Index in = tape.in(), out = tape.out(), N = tape.rows();
  const Array<Real> from = Array<Real>("x", x, 2, Access::read).shaped({N, in});
  const Array<Real> given = Array<Real>("dy", dy, 2, Access::read).shaped({N, out});
  LinearBackward<Real> args{};
  args.x = from.data();
  args.x_row = from.stride(0);
  args.dy = given.data();
  args.dy_row = given.stride(0);
  if (dx) {
    const Array<Real> to = Array<Real>("dx", *dx, 2, Access::write).shaped({N, in});
    args.dx = to.mutable_data();
    args.dx_row = to.stride(0);
  }
  args.d_weight = dense_output<Real>("d_weight", d_weight, {out, in});
  args.d_bias = dense_output<Real>("d_bias", d_bias, {out});
  args.threads = check_threads(threads);
  const py::gil_scoped_release nogil;  // the arrays are held by the caller's frame
  tape.backward(args);
}

template <class Real>
void bind(py::module_& m, const char* plan, const char* tape) {
  using py::arg;
  py::class_<LinearTape<Real>>(m, tape)
      .def("call", &backward_once<Real>, arg("x"), arg("dy"), arg("need_dx"), arg("d_weight"), arg("d_bias"),
           arg("threads"))
      .def("backward", &backward<Real>, arg("x"), arg("dy"), arg("dx"), arg("d_weight"), arg("d_bias"), arg("threads"));
  py::class_<LinearPlan<Real>>(m, plan)
      .def(py::init([](Index in, Index out, const std::optional<std::string>& precision, const std::string& engine) {
             return std::make_unique<LinearPlan<Real>>(in, out, check_settings(precision, engine));
           }),
           arg("in_features"), arg("out_features"), py::kw_only(), arg("precision") = py::none(),
           arg("engine") = "auto")
      .def(
          "products", [](const LinearPlan<Real>& self, Index N) { return describe(self.products(N)); }, arg("N"))
      .def("call", &call_once<Real>, arg("version"), arg("weight"), arg("bias"), arg("x"), arg("training"),
           arg("threads"))
      .def("forward", &forward<Real>, arg("version"), arg("weight"), arg("bias"), arg("x"), arg("y"), arg("training"),
           arg("threads"));
}

}  // namespace

void bind_linear(py::module_& m) {
  bind<float>(m, "LinearPlan", "LinearTape");
  bind<double>(m, "LinearPlan64", "LinearTape64");
}

}  // namespace lstmx::bindings
