// LstmPlan and LstmTape, LstmPlan64 and LstmTape64: the recurrent layer for Python, in float32 and float64.
#include "../kernels/plan.h"

#include <array>

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

template <class Real>
RecurrentWeights<Real> check_weights(Index I, Index H, const py::array& weight_ih, const py::array& weight_hh,
                                     const Optional& bias_ih, const Optional& bias_hh) {
  return {dense_input<Real>("weight_ih", weight_ih, {4 * H, I}), dense_input<Real>("weight_hh", weight_hh, {4 * H, H}),
          dense_input<Real>("bias_ih", bias_ih, {4 * H}), dense_input<Real>("bias_hh", bias_hh, {4 * H})};
}

template <class Real>
RecurrentGradients<Real> check_gradients(Index I, Index H, const py::array& d_weight_ih, const py::array& d_weight_hh,
                                         const Optional& d_bias_ih, const Optional& d_bias_hh) {
  return {dense_output<Real>("d_weight_ih", d_weight_ih, {4 * H, I}),
          dense_output<Real>("d_weight_hh", d_weight_hh, {4 * H, H}),
          dense_output<Real>("d_bias_ih", d_bias_ih, {4 * H}), dense_output<Real>("d_bias_hh", d_bias_hh, {4 * H})};
}

template <class Real>
std::unique_ptr<RecurrentTape<Real>> forward(RecurrentPlan<Real>& plan, std::int64_t version,
                                             const py::array& weight_ih, const py::array& weight_hh,
                                             const Optional& bias_ih, const Optional& bias_hh, const py::array& x,
                                             const Optional& h_0, const Optional& c_0, const Optional& lengths,
                                             const Optional& resets, const py::array& y, const py::array& h_n,
                                             const py::array& c_n, bool training, Index checkpoint_steps, int threads) {
  const Index I = plan.input_size(), H = plan.hidden_size();
  const RecurrentWeights<Real> weights = check_weights<Real>(I, H, weight_ih, weight_hh, bias_ih, bias_hh);
  const Array<Real> in("x", x, 3, Access::read);
  const Index T = in.shape(0), B = in.shape(1);
  if (in.shape(2) != I) refuse("x", "shape (*, *, " + std::to_string(I) + ")");
  RecurrentCall<Real> call{};
  call.T = T;
  call.B = B;
  call.x = in.view3();
  call.h_0 = dense_input<Real>("h_0", h_0, {B, H});
  call.c_0 = dense_input<Real>("c_0", c_0, {B, H});
  call.lengths = check_lengths(lengths, T, B);
  if (resets) {
    if (!py::isinstance<py::array_t<bool>>(*resets) || resets->ndim() != 2 || resets->shape(0) != T ||
        resets->shape(1) != B)
      refuse("resets", "bool of shape (" + std::to_string(T) + ", " + std::to_string(B) + ")");
    call.resets = static_cast<const unsigned char*>(resets->data());
    call.reset_step = resets->strides(0);
    call.reset_row = resets->strides(1);
  }
  call.y = Array<Real>("y", y, 3, Access::write).shaped({T, B, H}).mutable_view3();
  call.h_n = dense_output<Real>("h_n", h_n, {B, H});
  call.c_n = dense_output<Real>("c_n", c_n, {B, H});
  if (checkpoint_steps < 0) refuse("checkpoint_steps", "at least 0");
  call.checkpoint_steps = checkpoint_steps;
  call.threads = check_threads(threads);
  const py::gil_scoped_release nogil;  // the arrays are held by the caller's frame
  return plan.forward(version, weights, call, training);
}

// The short way for the usual call, one cell over a batch of full rows: checks, allocates and computes in one crossing
// of the border. Returns (y, (h_n, c_n), tape or None), or None where an argument would have to be converted or
// refused, which is Python's business.
template <class Real>
py::object call_once(RecurrentPlan<Real>& plan, std::int64_t version, const py::array& weight_ih,
                     const py::array& weight_hh, const Optional& bias_ih, const Optional& bias_hh, py::handle x,
                     py::handle state, bool batch_first, bool training, Index checkpoint_steps, int threads) {
  const Index I = plan.input_size(), H = plan.hidden_size();
  if (!is_readable<Real>(x, {-1, -1, I})) return py::none();
  const auto array = py::reinterpret_borrow<py::array>(x);
  const int time = batch_first ? 1 : 0, row = 1 - time;
  const Index T = array.shape(time), B = array.shape(row);
  const RecurrentWeights<Real> weights = check_weights<Real>(I, H, weight_ih, weight_hh, bias_ih, bias_hh);
  RecurrentCall<Real> call{};
  call.T = T;
  call.B = B;
  const Array<Real> in("x", array, 3, Access::read);
  call.x = {in.data(), in.stride(time), in.stride(row)};
  if (!state.is_none()) {
    if (!PyTuple_CheckExact(state.ptr()) || PyTuple_GET_SIZE(state.ptr()) != 2) return py::none();
    const py::handle h_0 = PyTuple_GET_ITEM(state.ptr(), 0), c_0 = PyTuple_GET_ITEM(state.ptr(), 1);
    for (const py::handle part : {h_0, c_0})
      if (!is_dense<Real>(part) || !is_readable<Real>(part, {1, B, H})) return py::none();
    call.h_0 = static_cast<const Real*>(py::reinterpret_borrow<py::array>(h_0).data());
    call.c_0 = static_cast<const Real*>(py::reinterpret_borrow<py::array>(c_0).data());
  }
  py::array_t<Real> y({array.shape(0), array.shape(1), H}), h_n({Index{1}, B, H}), c_n({Index{1}, B, H});
  const Array<Real> out("y", y, 3, Access::write);
  call.y = {out.mutable_data(), out.stride(time), out.stride(row)};
  call.h_n = h_n.mutable_data();
  call.c_n = c_n.mutable_data();
  if (checkpoint_steps < 0) refuse("checkpoint_steps", "at least 0");
  call.checkpoint_steps = checkpoint_steps;
  call.threads = check_threads(threads);
  std::unique_ptr<RecurrentTape<Real>> tape;
  {
    const py::gil_scoped_release nogil;  // the arrays are held by the caller's frame and by this one
    tape = plan.forward(version, weights, call, training);
  }
  return py::make_tuple(std::move(y), py::make_tuple(std::move(h_n), std::move(c_n)), py::cast(std::move(tape)));
}

// The short way back from call_once, of arrays as that took and made them. Returns (dx, (dh_0, dc_0)); None for what is
// not wanted.
template <class Real>
py::object backward_once(RecurrentTape<Real>& tape, const py::array& x, const py::array& y, const Optional& h_0,
                         const Optional& dy, const Optional& dh_n, const Optional& dc_n, bool batch_first, bool need_dx,
                         bool need_dstate, const py::array& d_weight_ih, const py::array& d_weight_hh,
                         const Optional& d_bias_ih, const Optional& d_bias_hh, int threads) {
  const auto [T, B, I, H, rows] = tape.size();
  const int time = batch_first ? 1 : 0, row = 1 - time;
  const auto shape = [&, T = T, B = B](Index last) {
    return batch_first ? std::array<Index, 3>{B, T, last} : std::array<Index, 3>{T, B, last};
  };
  const auto view = [&](const char* name, const py::array& array, Index last) {
    const auto [first, second, third] = shape(last);
    const Array<Real> checked = Array<Real>(name, array, 3, Access::read).shaped({first, second, third});
    return ConstView3<Real>{checked.data(), checked.stride(time), checked.stride(row)};
  };
  RecurrentBackward<Real> args{};
  args.x = view("x", x, I);
  args.y = view("y", y, H);
  args.h_0 = dense_input<Real>("h_0", h_0, {1, B, H});
  if (dy) args.dy = view("dy", *dy, H);
  args.dh_n = dense_input<Real>("dh_n", dh_n, {1, B, H});
  args.dc_n = dense_input<Real>("dc_n", dc_n, {1, B, H});
  args.gradients = check_gradients<Real>(I, H, d_weight_ih, d_weight_hh, d_bias_ih, d_bias_hh);
  args.threads = check_threads(threads);
  py::object dx = py::none(), dstate = py::none();
  if (need_dx) {
    py::array_t<Real> made(shape(I));
    const Array<Real> to("dx", made, 3, Access::write);
    args.dx = {to.mutable_data(), to.stride(time), to.stride(row)};
    dx = std::move(made);
  }
  if (need_dstate) {
    py::array_t<Real> dh_0({Index{1}, B, H}), dc_0({Index{1}, B, H});
    args.dh_0 = dh_0.mutable_data();
    args.dc_0 = dc_0.mutable_data();
    dstate = py::make_tuple(std::move(dh_0), std::move(dc_0));
  }
  {
    const py::gil_scoped_release nogil;  // the arrays are held by the caller's frame and by this one
    tape.backward(args);
  }
  return py::make_tuple(std::move(dx), std::move(dstate));
}

template <class Real>
void backward(RecurrentTape<Real>& tape, const py::array& x, const py::array& y, const Optional& h_0,
              const Optional& dy, const Optional& dh_n, const Optional& dc_n, const Optional& dx, const Optional& dh_0,
              const Optional& dc_0, const py::array& d_weight_ih, const py::array& d_weight_hh,
              const Optional& d_bias_ih, const Optional& d_bias_hh, int threads) {
  const auto [T, B, I, H, rows] = tape.size();
  RecurrentBackward<Real> args{};
  args.x = Array<Real>("x", x, 3, Access::read).shaped({T, B, I}).view3();
  args.y = Array<Real>("y", y, 3, Access::read).shaped({T, B, H}).view3();
  args.h_0 = dense_input<Real>("h_0", h_0, {B, H});
  if (dy) args.dy = Array<Real>("dy", *dy, 3, Access::read).shaped({T, B, H}).view3();
  args.dh_n = dense_input<Real>("dh_n", dh_n, {B, H});
  args.dc_n = dense_input<Real>("dc_n", dc_n, {B, H});
  if (dx) args.dx = Array<Real>("dx", *dx, 3, Access::write).shaped({T, B, I}).mutable_view3();
  args.dh_0 = dense_output<Real>("dh_0", dh_0, {B, H});
  args.dc_0 = dense_output<Real>("dc_0", dc_0, {B, H});
  args.gradients = check_gradients<Real>(I, H, d_weight_ih, d_weight_hh, d_bias_ih, d_bias_hh);
  args.threads = check_threads(threads);
  const py::gil_scoped_release nogil;  // the arrays are held by the caller's frame
  tape.backward(args);
}

template <class Real>
void bind(py::module_& m, const char* plan, const char* tape) {
  using py::arg;
  py::class_<RecurrentTape<Real>>(m, tape)
      .def("call", &backward_once<Real>, arg("x"), arg("y"), arg("h_0"), arg("dy"), arg("dh_n"), arg("dc_n"),
           arg("batch_first"), arg("need_dx"), arg("need_dstate"), arg("d_weight_ih"), arg("d_weight_hh"),
           arg("d_bias_ih"), arg("d_bias_hh"), arg("threads"))
      .def("backward", &backward<Real>, arg("x"), arg("y"), arg("h_0"), arg("dy"), arg("dh_n"), arg("dc_n"), arg("dx"),
           arg("dh_0"), arg("dc_0"), arg("d_weight_ih"), arg("d_weight_hh"), arg("d_bias_ih"), arg("d_bias_hh"),
           arg("threads"));
  py::class_<RecurrentPlan<Real>>(m, plan)
      .def(py::init([](Index input_size, Index hidden_size) {
             return std::make_unique<RecurrentPlan<Real>>(Cell::lstm, input_size, hidden_size);
           }),
           arg("input_size"), arg("hidden_size"))
      .def("call", &call_once<Real>, arg("version"), arg("weight_ih"), arg("weight_hh"), arg("bias_ih"), arg("bias_hh"),
           arg("x"), arg("state").none(true), arg("batch_first"), arg("training"), arg("checkpoint_steps"),
           arg("threads"))
      .def("forward", &forward<Real>, arg("version"), arg("weight_ih"), arg("weight_hh"), arg("bias_ih"),
           arg("bias_hh"), arg("x"), arg("h_0"), arg("c_0"), arg("lengths"), arg("resets"), arg("y"), arg("h_n"),
           arg("c_n"), arg("training"), arg("checkpoint_steps"), arg("threads"));
}

}  // namespace

void bind_recurrent(py::module_& m) {
  bind<float>(m, "LstmPlan", "LstmTape");
  bind<double>(m, "LstmPlan64", "LstmTape64");
}

}  // namespace lstmx::bindings
