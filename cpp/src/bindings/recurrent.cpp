// LstmPlan and LstmTape: the recurrent layer for Python.
#include "../kernels/plan.h"

#include <array>
#include <limits>
#include <tuple>

#include "arrays.h"
#include "settings.h"

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

// The parameters that not every cell has.
struct Others {
  const Optional &weight_ch, &weight_hr, &gain_ih, &gain_hh, &gain_c, &bias_c;

  // Refuses what is missing of the plan's, or is given without being the plan's.
  void check(const VariantOptions& options, bool projects) const {
    if (options.peepholes != weight_ch.has_value()) refuse("weight_ch", "an array where there are peepholes");
    if (projects != weight_hr.has_value()) refuse("weight_hr", "an array where there is a projection");
    for (const Optional* gain : {&gain_ih, &gain_hh, &gain_c, &bias_c}) {
      if ((options.layer_norm || options.batch_norm) != gain->has_value())
        refuse("gain_ih, gain_hh, gain_c, bias_c", "arrays where there is normalization");
    }
  }
};

const Optional nothing;
const Others no_others{nothing, nothing, nothing, nothing, nothing, nothing};

// The parameters' shapes; `check` is dense_input or dense_output.
template <class Result, class Matrix, class Check>
Result check_parameters(Index R, Index I, Index H, Index P, const Matrix& weight_ih, const Matrix& weight_hh,
                        const Optional& bias_ih, const Optional& bias_hh, const Others& o, const Check& check) {
  return {check("weight_ih", weight_ih, {R * H, I}),
          check("weight_hh", weight_hh, {R * H, P}),
          check("bias_ih", bias_ih, {R * H}),
          check("bias_hh", bias_hh, {R * H}),
          check("weight_ch", o.weight_ch, {3 * H}),
          check("weight_hr", o.weight_hr, {P, H}),
          check("gain_ih", o.gain_ih, {R * H}),
          check("gain_hh", o.gain_hh, {R * H}),
          check("gain_c", o.gain_c, {H}),
          check("bias_c", o.bias_c, {H})};
}

template <class Real>
RecurrentWeights<Real> check_weights(const RecurrentPlan<Real>& plan, const py::array& weight_ih,
                                     const py::array& weight_hh, const Optional& bias_ih, const Optional& bias_hh,
                                     const Others& others) {
  const Index H = plan.hidden_size(), P = plan.output_size();
  others.check(plan.options(), P != H);
  return check_parameters<RecurrentWeights<Real>>(
      plan.gate_rows(), plan.input_size(), H, P, weight_ih, weight_hh, bias_ih, bias_hh, others,
      [](const char* name, const auto& array, std::initializer_list<Index> shape) {
        return dense_input<Real>(name, array, shape);
      });
}

template <class Real>
RecurrentGradients<Real> check_gradients(const RecurrentTape<Real>& tape, const py::array& d_weight_ih,
                                         const py::array& d_weight_hh, const Optional& d_bias_ih,
                                         const Optional& d_bias_hh, const Others& others) {
  const RecurrentSizes& n = tape.size();
  others.check(tape.options(), n.P != n.H);
  return check_parameters<RecurrentGradients<Real>>(
      tape.gate_rows(), n.I, n.H, n.P, d_weight_ih, d_weight_hh, d_bias_ih, d_bias_hh, others,
      [](const char* name, const auto& array, std::initializer_list<Index> shape) {
        return dense_output<Real>((std::string("d_") + name).c_str(), array, shape);
      });
}

using SixArrays = std::optional<std::array<py::array, 6>>;

// The mean and the variance of the products with x, of those with h, and of c, by step; `check` is dense_input or
// dense_output. `steps`: how many there must be; -1: any number, at least 1.
template <class Real, class Check>
Statistics<Real> check_statistics(const char* name, const SixArrays& arrays, const VariantOptions& options, Index H,
                                  Index steps, const Check& check) {
  Statistics<Real> statistics{};
  if (!arrays) return statistics;
  if (!options.batch_norm) refuse(name, "None without batch normalization");
  if ((*arrays)[0].ndim() != 2 || (steps < 0 && (*arrays)[0].shape(0) < 1)) refuse(name, "arrays [steps, ...]");
  statistics.steps = steps < 0 ? (*arrays)[0].shape(0) : steps;
  for (int side = 0; side < 3; ++side) {
    const Index width = side < 2 ? 4 * H : H;
    statistics.mean[side] = check(name, (*arrays)[2 * side], {statistics.steps, width});
    statistics.variance[side] = check(name, (*arrays)[2 * side + 1], {statistics.steps, width});
  }
  return statistics;
}

template <class Real>
Statistics<const Real> check_running(const SixArrays& arrays, const VariantOptions& options, Index H) {
  return check_statistics<const Real>("running", arrays, options, H, -1,
                                      [](const char* name, const py::array& array, std::initializer_list<Index> shape) {
                                        return dense_input<Real>(name, array, shape);
                                      });
}

// [T,B,N], any strides but of the last axis: 0 to 1, how much a unit keeps
template <class Real>
ConstView3<Real> check_keep(const char* name, const Optional& array, Index T, Index B, Index N) {
  return array ? Array<Real>(name, *array, 3, Access::read).shaped({T, B, N}).view3() : ConstView3<Real>{};
}

template <class Real>
std::unique_ptr<RecurrentTape<Real>> forward(
    RecurrentPlan<Real>& plan, std::int64_t version, const py::array& weight_ih, const py::array& weight_hh,
    const Optional& bias_ih, const Optional& bias_hh, const py::array& x, const Optional& h_0, const Optional& c_0,
    const Optional& lengths, const Optional& resets, const py::array& y, const py::array& h_n, const py::array& c_n,
    bool training, Index checkpoint_steps, int threads, const Optional& weight_ch, const Optional& weight_hr,
    const Optional& cells, const Optional& gates, const Optional& keep_h, const Optional& keep_c,
    const Optional& h_mask, const Optional& gain_ih, const Optional& gain_hh, const Optional& gain_c,
    const Optional& bias_c, const SixArrays& running, const SixArrays& made) {
  const Index I = plan.input_size(), H = plan.hidden_size(), P = plan.output_size();
  const RecurrentWeights<Real> weights = check_weights(plan, weight_ih, weight_hh, bias_ih, bias_hh,
                                                       {weight_ch, weight_hr, gain_ih, gain_hh, gain_c, bias_c});
  const Array<Real> in("x", x, 3, Access::read);
  const Index T = in.shape(0), B = in.shape(1);
  if (in.shape(2) != I) refuse("x", "shape (*, *, " + std::to_string(I) + ")");
  RecurrentCall<Real> call{};
  call.T = T;
  call.B = B;
  call.x = in.view3();
  call.h_0 = dense_input<Real>("h_0", h_0, {B, P});
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
  call.y = Array<Real>("y", y, 3, Access::write).shaped({T, B, P}).mutable_view3();
  call.h_n = dense_output<Real>("h_n", h_n, {B, P});
  call.c_n = dense_output<Real>("c_n", c_n, {B, H});
  if (cells) call.cells = Array<Real>("cells", *cells, 3, Access::write).shaped({T, B, H}).mutable_view3();
  if (gates) call.gates = Array<Real>("gates", *gates, 3, Access::write).shaped({T, B, 4 * H}).mutable_view3();
  if (gates && (!training || checkpoint_steps != 0)) refuse("gates", "None without a tape of all steps");
  call.keep_h = check_keep<Real>("keep_h", keep_h, T, B, P);
  call.keep_c = check_keep<Real>("keep_c", keep_c, T, B, H);
  if (keep_h && plan.cell() == Cell::lstm) refuse("keep_h", "None for this cell");
  if (keep_c && plan.cell() != Cell::variant) refuse("keep_c", "None for this cell");
  call.h_mask = dense_input<Real>("h_mask", h_mask, {B, P});
  if (h_mask && (!training || plan.cell() == Cell::lstm)) refuse("h_mask", "None in inference and for this cell");
  call.running = check_running<Real>(running, plan.options(), H);
  call.made = check_statistics<Real>("made", made, plan.options(), H, T,
                                     [](const char* name, const py::array& array, std::initializer_list<Index> shape) {
                                       return dense_output<Real>(name, array, shape);
                                     });
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
  if (plan.cell() != Cell::lstm || !is_readable<Real>(x, {-1, -1, I})) return py::none();
  const auto array = py::reinterpret_borrow<py::array>(x);
  const int time = batch_first ? 1 : 0, row = 1 - time;
  const Index T = array.shape(time), B = array.shape(row);
  const RecurrentWeights<Real> weights = check_weights(plan, weight_ih, weight_hh, bias_ih, bias_hh, no_others);
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
  const Index T = tape.size().T, B = tape.size().B, I = tape.size().I, H = tape.size().H;
  const int time = batch_first ? 1 : 0, row = 1 - time;
  const auto shape = [&](Index last) {
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
  args.gradients = check_gradients(tape, d_weight_ih, d_weight_hh, d_bias_ih, d_bias_hh, no_others);
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
              const Optional& d_bias_ih, const Optional& d_bias_hh, int threads, const Optional& d_weight_ch,
              const Optional& d_weight_hr, const Optional& dcells, const Optional& keep_h, const Optional& keep_c,
              const Optional& h_mask, const Optional& d_gain_ih, const Optional& d_gain_hh, const Optional& d_gain_c,
              const Optional& d_bias_c, const SixArrays& running) {
  const auto [T, B, I, H, P, rows, masked, normalized, by_batch, parts] = tape.size();
  RecurrentBackward<Real> args{};
  args.x = Array<Real>("x", x, 3, Access::read).shaped({T, B, I}).view3();
  args.y = Array<Real>("y", y, 3, Access::read).shaped({T, B, P}).view3();
  args.h_0 = dense_input<Real>("h_0", h_0, {B, P});
  if (dy) args.dy = Array<Real>("dy", *dy, 3, Access::read).shaped({T, B, P}).view3();
  if (dcells) args.dcells = Array<Real>("dcells", *dcells, 3, Access::read).shaped({T, B, H}).view3();
  args.dh_n = dense_input<Real>("dh_n", dh_n, {B, P});
  args.dc_n = dense_input<Real>("dc_n", dc_n, {B, H});
  if (dx) args.dx = Array<Real>("dx", *dx, 3, Access::write).shaped({T, B, I}).mutable_view3();
  args.dh_0 = dense_output<Real>("dh_0", dh_0, {B, P});
  args.dc_0 = dense_output<Real>("dc_0", dc_0, {B, H});
  args.gradients = check_gradients(tape, d_weight_ih, d_weight_hh, d_bias_ih, d_bias_hh,
                                   {d_weight_ch, d_weight_hr, d_gain_ih, d_gain_hh, d_gain_c, d_bias_c});
  args.staged.keep_h = check_keep<Real>("keep_h", keep_h, T, B, P);
  args.staged.keep_c = check_keep<Real>("keep_c", keep_c, T, B, H);
  args.staged.h_mask = dense_input<Real>("h_mask", h_mask, {B, P});
  args.staged.running = check_running<Real>(running, tape.options(), H);
  if (h_mask.has_value() != masked) refuse("h_mask", "the mask that forward was given");
  args.threads = check_threads(threads);
  const py::gil_scoped_release nogil;  // the arrays are held by the caller's frame
  tape.backward(args);
}

Cell check_cell(const std::string& name) {
#define LSTMX_CELL(known, type) \
  if (name == #known) return Cell::known;
#include "../kernels/cells.inc"
#undef LSTMX_CELL
  refuse("cell", "the name of a cell");
}

// (name, alpha, beta)
using NamedActivation = std::tuple<std::string, double, double>;

Activation check_activation(const char* name, const NamedActivation& activation) {
  const auto& [function, alpha, beta] = activation;
#define LSTMX_FUNCTION(known) \
  if (function == #known) return {Function::known, alpha, beta};
#include "../kernels/functions.inc"
#undef LSTMX_FUNCTION
  refuse(name, "the name of a function");
}

template <class Real>
std::unique_ptr<RecurrentPlan<Real>> make_plan(Index input_size, Index hidden_size, const std::string& cell,
                                               std::optional<Index> output_size, bool coupled, bool peepholes,
                                               bool layer_norm, bool batch_norm, double eps, double gate_clip,
                                               double cell_clip, const NamedActivation& gate,
                                               const NamedActivation& candidate, const NamedActivation& output,
                                               const std::optional<std::string>& precision, const std::string& engine) {
  const Cell kind = check_cell(cell);
  const Index P = output_size.value_or(hidden_size);
  if (kind != Cell::variant && (P != hidden_size || peepholes || layer_norm || batch_norm))
    refuse("cell", "variant, for a projection, peepholes or normalization");
  return std::make_unique<RecurrentPlan<Real>>(
      kind, input_size, hidden_size, P,
      VariantOptions{coupled, peepholes, layer_norm, batch_norm, eps, gate_clip, cell_clip,
                     check_activation("gate", gate), check_activation("candidate", candidate),
                     check_activation("output", output)},
      check_settings(precision, engine));
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
           arg("threads"), arg("d_weight_ch") = py::none(), arg("d_weight_hr") = py::none(), arg("dcells") = py::none(),
           arg("keep_h") = py::none(), arg("keep_c") = py::none(), arg("h_mask") = py::none(),
           arg("d_gain_ih") = py::none(), arg("d_gain_hh") = py::none(), arg("d_gain_c") = py::none(),
           arg("d_bias_c") = py::none(), arg("running") = py::none());
  py::class_<RecurrentPlan<Real>>(m, plan)
      .def(py::init(&make_plan<Real>), arg("input_size"), arg("hidden_size"), py::kw_only(), arg("cell") = "lstm",
           arg("output_size") = py::none(), arg("coupled") = false, arg("peepholes") = false, arg("layer_norm") = false,
           arg("batch_norm") = false, arg("eps") = 1e-5, arg("gate_clip") = std::numeric_limits<double>::infinity(),
           arg("cell_clip") = std::numeric_limits<double>::infinity(), arg("gate") = NamedActivation{"sigmoid", 0, 0},
           arg("candidate") = NamedActivation{"tanh", 0, 0}, arg("output") = NamedActivation{"tanh", 0, 0},
           arg("precision") = py::none(), arg("engine") = "auto")
      .def(
          "products", [](const RecurrentPlan<Real>& self, Index B) { return describe(self.products(B)); }, arg("B"))
      .def("call", &call_once<Real>, arg("version"), arg("weight_ih"), arg("weight_hh"), arg("bias_ih"), arg("bias_hh"),
           arg("x"), arg("state").none(true), arg("batch_first"), arg("training"), arg("checkpoint_steps"),
           arg("threads"))
      .def("forward", &forward<Real>, arg("version"), arg("weight_ih"), arg("weight_hh"), arg("bias_ih"),
           arg("bias_hh"), arg("x"), arg("h_0"), arg("c_0"), arg("lengths"), arg("resets"), arg("y"), arg("h_n"),
           arg("c_n"), arg("training"), arg("checkpoint_steps"), arg("threads"), arg("weight_ch") = py::none(),
           arg("weight_hr") = py::none(), arg("cells") = py::none(), arg("gates") = py::none(),
           arg("keep_h") = py::none(), arg("keep_c") = py::none(), arg("h_mask") = py::none(),
           arg("gain_ih") = py::none(), arg("gain_hh") = py::none(), arg("gain_c") = py::none(),
           arg("bias_c") = py::none(), arg("running") = py::none(), arg("made") = py::none());
}

}  // namespace

void bind_recurrent(py::module_& m) {
  bind<float>(m, "LstmPlan", "LstmTape");
  bind<double>(m, "LstmPlan64", "LstmTape64");
}

}  // namespace lstmx::bindings
