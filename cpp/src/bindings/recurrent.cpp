// LstmPlan and LstmTape: the recurrent layer for Python.
#include "../kernels/plan.h"
#include "arrays.h"

namespace lstmx::bindings {
namespace {

// int64 [B], each within 0 and T
const std::int64_t* check_lengths(const Optional& lengths, Index T, Index B) {
  if (!lengths) return nullptr;
  if (!py::isinstance<py::array_t<std::int64_t>>(*lengths) || lengths->ndim() != 1 || lengths->shape(0) != B ||
      (B > 1 && lengths->strides(0) != Index{sizeof(std::int64_t)}))
    refuse("lengths", "contiguous int64 of shape (" + std::to_string(B) + ",)");
  const auto* values = static_cast<const std::int64_t*>(lengths->data());
  for (Index b = 0; b < B; ++b) {
    if (values[b] < 0 || values[b] > T) refuse("lengths", "0 to " + std::to_string(T));
  }
  return values;
}

std::unique_ptr<RecurrentTape> forward(RecurrentPlan& plan, std::int64_t version, const py::array& weight_ih,
                                       const py::array& weight_hh, const Optional& bias_ih, const Optional& bias_hh,
                                       const py::array& x, const Optional& h_0, const Optional& c_0,
                                       const Optional& lengths, const Optional& resets, const py::array& y,
                                       const py::array& h_n, const py::array& c_n, bool training,
                                       Index checkpoint_steps, int threads) {
  const Index I = plan.input_size(), H = plan.hidden_size();
  const RecurrentWeights weights{dense_input("weight_ih", weight_ih, {4 * H, I}),
                                 dense_input("weight_hh", weight_hh, {4 * H, H}),
                                 dense_input("bias_ih", bias_ih, {4 * H}), dense_input("bias_hh", bias_hh, {4 * H})};
  const Array in("x", x, 3, Access::read);
  const Index T = in.shape(0), B = in.shape(1);
  if (in.shape(2) != I) refuse("x", "shape (*, *, " + std::to_string(I) + ")");
  RecurrentCall call{};
  call.T = T;
  call.B = B;
  call.x = in.view3();
  call.h_0 = dense_input("h_0", h_0, {B, H});
  call.c_0 = dense_input("c_0", c_0, {B, H});
  call.lengths = check_lengths(lengths, T, B);
  if (resets) {
    if (!py::isinstance<py::array_t<bool>>(*resets) || resets->ndim() != 2 || resets->shape(0) != T ||
        resets->shape(1) != B)
      refuse("resets", "bool of shape (" + std::to_string(T) + ", " + std::to_string(B) + ")");
    call.resets = static_cast<const unsigned char*>(resets->data());
    call.reset_step = resets->strides(0);
    call.reset_row = resets->strides(1);
  }
  call.y = Array("y", y, 3, Access::write).shaped({T, B, H}).mutable_view3();
  call.h_n = dense_output("h_n", h_n, {B, H});
  call.c_n = dense_output("c_n", c_n, {B, H});
  if (checkpoint_steps < 0) refuse("checkpoint_steps", "at least 0");
  call.checkpoint_steps = checkpoint_steps;
  call.threads = check_threads(threads);
  const py::gil_scoped_release nogil;  // the arrays are held by the caller's frame
  return plan.forward(version, weights, call, training);
}

void backward(RecurrentTape& tape, const py::array& x, const py::array& y, const Optional& h_0, const Optional& dy,
              const Optional& dh_n, const Optional& dc_n, const Optional& dx, const Optional& dh_0,
              const Optional& dc_0, const py::array& d_weight_ih, const py::array& d_weight_hh,
              const Optional& d_bias_ih, const Optional& d_bias_hh, int threads) {
  const auto [T, B, I, H, rows] = tape.size();
  RecurrentBackward args{};
  args.x = Array("x", x, 3, Access::read).shaped({T, B, I}).view3();
  args.y = Array("y", y, 3, Access::read).shaped({T, B, H}).view3();
  args.h_0 = dense_input("h_0", h_0, {B, H});
  if (dy) args.dy = Array("dy", *dy, 3, Access::read).shaped({T, B, H}).view3();
  args.dh_n = dense_input("dh_n", dh_n, {B, H});
  args.dc_n = dense_input("dc_n", dc_n, {B, H});
  if (dx) args.dx = Array("dx", *dx, 3, Access::write).shaped({T, B, I}).mutable_view3();
  args.dh_0 = dense_output("dh_0", dh_0, {B, H});
  args.dc_0 = dense_output("dc_0", dc_0, {B, H});
  args.gradients = {dense_output("d_weight_ih", d_weight_ih, {4 * H, I}),
                    dense_output("d_weight_hh", d_weight_hh, {4 * H, H}), dense_output("d_bias_ih", d_bias_ih, {4 * H}),
                    dense_output("d_bias_hh", d_bias_hh, {4 * H})};
  args.threads = check_threads(threads);
  const py::gil_scoped_release nogil;  // the arrays are held by the caller's frame
  tape.backward(args);
}

}  // namespace

void bind_recurrent(py::module_& m) {
  using py::arg;
  py::class_<RecurrentTape>(m, "LstmTape")
      .def("backward", &backward, arg("x"), arg("y"), arg("h_0"), arg("dy"), arg("dh_n"), arg("dc_n"), arg("dx"),
           arg("dh_0"), arg("dc_0"), arg("d_weight_ih"), arg("d_weight_hh"), arg("d_bias_ih"), arg("d_bias_hh"),
           arg("threads"));
  py::class_<RecurrentPlan>(m, "LstmPlan")
      .def(py::init([](Index input_size, Index hidden_size) {
             return std::make_unique<RecurrentPlan>(Cell::lstm, input_size, hidden_size);
           }),
           arg("input_size"), arg("hidden_size"))
      .def("forward", &forward, arg("version"), arg("weight_ih"), arg("weight_hh"), arg("bias_ih"), arg("bias_hh"),
           arg("x"), arg("h_0"), arg("c_0"), arg("lengths"), arg("resets"), arg("y"), arg("h_n"), arg("c_n"),
           arg("training"), arg("checkpoint_steps"), arg("threads"));
}

}  // namespace lstmx::bindings
