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
      .def("backward", &backward, arg("x"), arg("dy"), arg("dx"), arg("d_weight"), arg("d_bias"), arg("threads"));
  py::class_<LinearPlan>(m, "LinearPlan")
      .def(py::init<Index, Index>(), arg("in_features"), arg("out_features"))
      .def("forward", &forward, arg("version"), arg("weight"), arg("bias"), arg("x"), arg("y"), arg("training"),
           arg("threads"));
}

}  // namespace lstmx::bindings
