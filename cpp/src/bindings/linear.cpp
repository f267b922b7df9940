// LinearPlan and LinearTape: the affine layer for Python.
#include "../kernels/plan.h"
#include "arrays.h"

namespace lstmx::bindings {
namespace {

std::unique_ptr<LinearTape> forward(LinearPlan& plan, std::int64_t version, const py::array& weight,
                                    const Optional& bias, const py::array& x, const py::array& y, bool training,
                                    int threads) {
  const Index in = plan.in(), out = plan.out();
  const float* w = dense_input("weight", weight, {out, in});
  const float* b = dense_input("bias", bias, {out});
  const Array from("x", x, 2, Access::read);
  if (from.shape(1) != in) refuse("x", "shape (*, " + std::to_string(in) + ")");
  const Array to = Array("y", y, 2, Access::write).shaped({from.shape(0), out});
  LinearForward args{};
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
py::object call_once(LinearPlan& plan, std::int64_t version, const py::array& weight, const Optional& bias,
                     py::handle x, bool training, int threads) {
  const Index in = plan.in(), out = plan.out();
  if (!is_dense(x)) return py::none();
  const auto array = py::reinterpret_borrow<py::array>(x);
  const auto last = array.ndim() - 1;
  if (last < 0 || array.shape(last) != in) return py::none();
  std::vector<Index> shape(array.shape(), array.shape() + array.ndim());
  shape.back() = out;
  py::array_t<float> y(shape);
  const float* w = dense_input("weight", weight, {out, in});
  const float* b = dense_input("bias", bias, {out});
  LinearForward args{};
  args.N = y.size() / out;
  args.x = static_cast<const float*>(array.data());
  args.x_row = in;
  args.y = y.mutable_data();
  args.y_row = out;
  args.threads = check_threads(threads);
  std::unique_ptr<LinearTape> tape;
  {
    const py::gil_scoped_release nogil;  // the arrays are held by the caller's frame and by this one
    tape = plan.forward(version, w, b, args, training);
  }
  return py::make_tuple(std::move(y), py::cast(std::move(tape)));
}

// The short way back: dx of the shape of x, or None where it is not wanted.
py::object backward_once(const LinearTape& tape, const py::array& x, const py::array& dy, bool need_dx,
                         const py::array& d_weight, const Optional& d_bias, int threads) {
  const Index in = tape.in(), out = tape.out(), N = tape.rows();
  if (!is_dense(x) || x.size() != N * in) refuse("x", "a dense array of " + std::to_string(N * in) + " numbers");
  if (!is_dense(dy) || dy.size() != N * out) refuse("dy", "a dense array of " + std::to_string(N * out) + " numbers");
  LinearBackward args{};
  args.x = static_cast<const float*>(x.data());
  args.x_row = in;
  args.dy = static_cast<const float*>(dy.data());
  args.dy_row = out;
  args.d_weight = dense_output("d_weight", d_weight, {out, in});
  args.d_bias = dense_output("d_bias", d_bias, {out});
  args.threads = check_threads(threads);
  py::object dx = py::none();
  if (need_dx) {
    py::array_t<float> made(std::vector<Index>(x.shape(), x.shape() + x.ndim()));
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

void backward(const LinearTape& tape, const py::array& x, const py::array& dy, const Optional& dx,
              const py::array& d_weight, const Optional& d_bias, int threads) {
  const Index in = tape.in(), out = tape.out(), N = tape.rows();
  const Array from = Array("x", x, 2, Access::read).shaped({N, in});
  const Array given = Array("dy", dy, 2, Access::read).shaped({N, out});
  LinearBackward args{};
  args.x = from.data();
  args.x_row = from.stride(0);
  args.dy = given.data();
  args.dy_row = given.stride(0);
  if (dx) {
    const Array to = Array("dx", *dx, 2, Access::write).shaped({N, in});
    args.dx = to.mutable_data();
    args.dx_row = to.stride(0);
  }
  args.d_weight = dense_output("d_weight", d_weight, {out, in});
  args.d_bias = dense_output("d_bias", d_bias, {out});
  args.threads = check_threads(threads);
  const py::gil_scoped_release nogil;  // the arrays are held by the caller's frame
  tape.backward(args);
}

}  // namespace

void bind_linear(py::module_& m) {
  using py::arg;
  py::class_<LinearTape>(m, "LinearTape")
      .def("call", &backward_once, arg("x"), arg("dy"), arg("need_dx"), arg("d_weight"), arg("d_bias"), arg("threads"))
      .def("backward", &backward, arg("x"), arg("dy"), arg("dx"), arg("d_weight"), arg("d_bias"), arg("threads"));
  py::class_<LinearPlan>(m, "LinearPlan")
      .def(py::init<Index, Index>(), arg("in_features"), arg("out_features"))
      .def("call", &call_once, arg("version"), arg("weight"), arg("bias"), arg("x"), arg("training"), arg("threads"))
      .def("forward", &forward, arg("version"), arg("weight"), arg("bias"), arg("x"), arg("y"), arg("training"),
           arg("threads"));
}

}  // namespace lstmx::bindings
