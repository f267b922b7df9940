// TensorLstm and TensorTape: one layer and direction of an LSTM on another library's arrays, read and made through an
// Exchange. What their caller gives as tensors of its own, in the order of `names`, is a tuple; what persists between
// calls is one layer's: a plan and a copy of the weights that it holds packed. Sequences may run back in time, and may
// be packed: the rows [N,*] of all steps one after the other, the longest sequence first, as PyTorch has them.
#include <cstring>
#include <limits>
#include <mutex>
#include <optional>
#include <vector>

#include "../kernels/plan.h"
#include "../kernels/threads.h"
#include "exchange.h"

namespace lstmx::bindings {
namespace {

enum Name { input, h_0, c_0, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, y, dy, dh_n, dc_n, count };
constexpr const char* names[count] = {"input",   "h_0",       "c_0", "weight_ih", "weight_hh", "bias_ih",
                                      "bias_hh", "weight_hr", "y",   "dy",        "dh_n",      "dc_n"};
constexpr int inputs = y;  // forward's; backward has all

// Thrown for what kernels cannot read where it lies, and could read from a contiguous copy.
struct NeedsCopy {
  int number;
};

std::string describe(const Index* shape, std::size_t ndim) {
  std::string text = "(";
  for (std::size_t axis = 0; axis < ndim; ++axis) {
    if (axis > 0) text += ", ";
    text += std::to_string(shape[axis]);
  }
  text += ndim == 1 ? ",)" : ")";
  return text;
}

// The arguments of a call, by name. What is None is absent.
class Arguments {
 public:
  Arguments(const Exchange& exchange, const py::tuple& tensors, int expected) {
    if (PyTuple_GET_SIZE(tensors.ptr()) != expected) refuse("tensors", std::to_string(expected) + " of them");
    for (int k = 0; k < expected; ++k) {
      const py::handle tensor = PyTuple_GET_ITEM(tensors.ptr(), k);
      has_[k] = !tensor.is_none();
      if (has_[k] && !exchange.read(tensor, arrays_[k])) refuse(names[k], "an array on the CPU, of at most 3 axes");
    }
    for (const Name needed : {input, weight_ih, weight_hh})
      if (!has_[needed]) refuse(names[needed], "an array");
    if (expected == count && !has_[y]) refuse(names[y], "an array");
  }

  bool has(Name k) const { return has_[k]; }
  const Strided& operator[](Name k) const { return arrays_[k]; }

  // The memory of an array of this shape, all axes contiguous; null for an absent one.
  template <class Real>
  const Real* dense(Name k, std::initializer_list<Index> shape) const {
    return checked<Real>(k, shape, 0);
  }

  // Of this shape and any strides but of the last axis.
  template <class Real>
  ConstView3<Real> view3(Name k, Index T, Index B, Index width) const {
    const auto* data = checked<Real>(k, {T, B, width}, 2);
    return {data, arrays_[k].strides[0], arrays_[k].strides[1]};
  }

 private:
  // `free`: the number of axes that need not be contiguous.
  template <class Real>
  const Real* checked(Name k, std::initializer_list<Index> shape, int free) const {
    if (!has_[k]) return nullptr;
    const Strided& array = arrays_[k];
    if (!array.floating || array.bits != 8 * static_cast<int>(sizeof(Real))) refuse(names[k], name_of<Real>);
    if (array.ndim != static_cast<int>(shape.size()) || !std::equal(shape.begin(), shape.end(), array.shape.begin()))
      refuse(names[k], std::string("shape ") + describe(shape.begin(), shape.size()) + ", got " +
                           describe(array.shape.data(), static_cast<std::size_t>(array.ndim)));
    Index stride = 1, size = 1;
    for (const Index n : shape) size *= n;
    for (int axis = array.ndim - 1; axis >= free && size > 0; --axis) {
      if (array.shape[axis] > 1 && array.strides[axis] != stride) throw NeedsCopy{k};
      stride *= array.shape[axis];
    }
    if (reinterpret_cast<std::uintptr_t>(array.data) % sizeof(Real) != 0) throw NeedsCopy{k};
    return static_cast<const Real*>(array.data);
  }

  std::array<Strided, count> arrays_;
  std::array<bool, count> has_{};
};

// How a caller's sequences lie, and where the kernels' steps are in them.
class Layout {
 public:
  // `batch_sizes`: the rows at each step, int64 [T], of packed data; or None. `order`: which row of the states each of
  // them is at the first step, int64 [B]; None: in the same order.
  Layout(const Exchange& exchange, const Strided& x, py::handle batch_sizes, py::handle order, bool reverse)
      : reverse_(reverse) {
    packed_ = !batch_sizes.is_none();
    if (!packed_) {
      if (x.ndim != 3 || x.shape[0] == 0) refuse("input", "3 dimensions, and at least one time step");
      T = x.shape[0];
      B = x.shape[1];
      N = T * B;
      return;
    }
    if (x.ndim != 2) refuse("input", "2 dimensions, as packed data have");
    sizes_ = integers(exchange, "batch_sizes", batch_sizes);
    T = static_cast<Index>(sizes_.size());
    B = T > 0 ? sizes_[0] : 0;
    N = x.shape[0];
    Index left = N, before = B;
    for (const Index n : sizes_) {
      if (n < 1 || n > before) refuse("batch_sizes", "numbers above 0, none greater than the one before");
      left -= before = n;
    }
    if (left != 0) refuse("batch_sizes", "a sum of " + std::to_string(N));
    lengths_.resize(static_cast<std::size_t>(B));
    Index b = B;
    for (Index t = 1; t <= T; ++t) {
      const Index alive = t < T ? sizes_[static_cast<std::size_t>(t)] : 0;
      while (b > alive) lengths_[static_cast<std::size_t>(--b)] = t;
    }
    if (order.is_none()) return;
    order_ = integers(exchange, "order", order);
    std::vector<bool> taken(static_cast<std::size_t>(B));
    for (const Index row : order_) {
      if (row < 0 || row >= B || taken[static_cast<std::size_t>(row)]) refuse("order", "each row once");
      taken[static_cast<std::size_t>(row)] = true;
    }
    if (static_cast<Index>(order_.size()) != B) refuse("order", "each row once");
  }

  Index T = 0, B = 0, N = 0;  // N: rows of all steps together, as they are in memory

  bool packed() const { return packed_; }
  const std::int64_t* lengths() const { return packed_ ? lengths_.data() : nullptr; }

  bool ordered() const { return !order_.empty(); }

  // The steps in the kernels' order, of a sequence that is not packed.
  template <class View>
  View turned(View view) const {
    return reverse_ && view.data != nullptr ? View{view.data + (T - 1) * view.step, -view.step, view.row} : view;
  }

  // Packed data [N,width] to [T,B,width] in the kernels' order, and back. What is beyond a row's length is left out.
  template <class Real>
  void pad(const Real* data, Index width, Real* padded) const {
    each_run([&](Index n, Index row, Index rows) { copy(data + n * width, rows * width, padded + row * width); });
  }
  template <class Real>
  void unpad(const Real* padded, Index width, Real* data) const {
    each_run([&](Index n, Index row, Index rows) { copy(padded + row * width, rows * width, data + n * width); });
  }

  // The rows of a state [B,width] in the order of the packed data, and back.
  template <class Real>
  void sort(const Real* state, Index width, Real* sorted) const {
    for (Index b = 0; b < B; ++b) copy(state + order_[static_cast<std::size_t>(b)] * width, width, sorted + b * width);
  }
  template <class Real>
  void unsort(const Real* sorted, Index width, Real* state) const {
    for (Index b = 0; b < B; ++b) copy(sorted + b * width, width, state + order_[static_cast<std::size_t>(b)] * width);
  }

 private:
  static std::vector<std::int64_t> integers(const Exchange& exchange, const char* name, py::handle object) {
    Strided given;
    if (!exchange.read(object, given) || given.ndim != 1 || given.floating || given.bits != 64 ||
        (given.shape[0] > 1 && given.strides[0] != 1))
      refuse(name, "int64 of one axis");
    const auto* values = static_cast<const std::int64_t*>(given.data);
    return {values, values + given.shape[0]};
  }

  template <class Real>
  static void copy(const Real* from, Index n, Real* to) {
    std::memcpy(to, from, static_cast<std::size_t>(n) * sizeof(Real));
  }

  // Calls run(the first of the data, its row of [T*B], how many lie together).
  template <class Run>
  void each_run(const Run& run) const {
    Index n = 0;
    for (Index t = 0; t < T; ++t) {
      const Index alive = sizes_[static_cast<std::size_t>(t)];
      if (!reverse_) {
        run(n, t * B, alive);
      } else {  // each row from its own end
        for (Index b = 0; b < alive; ++b) run(n + b, (lengths_[static_cast<std::size_t>(b)] - 1 - t) * B + b, 1);
      }
      n += alive;
    }
  }

  bool packed_, reverse_;
  std::vector<std::int64_t> sizes_, lengths_, order_;  // of packed data: rows by step, steps by row, the states' rows
};

const VariantOptions plain{false,
                           false,
                           false,
                           false,
                           0.0,
                           std::numeric_limits<double>::infinity(),
                           std::numeric_limits<double>::infinity(),
                           {Function::sigmoid, 0, 0},
                           {Function::tanh, 0, 0},
                           {Function::tanh, 0, 0}};

struct Sizes {
  Index I, H, P;

  explicit Sizes(const Arguments& given) {
    for (const Name k : {weight_ih, weight_hh, weight_hr})
      if (given.has(k) && given[k].ndim != 2) refuse(names[k], "2 dimensions");
    I = given[weight_ih].shape[1];
    H = given[weight_ih].shape[0] / 4;
    P = given.has(weight_hr) ? given[weight_hr].shape[0] : H;
    if (given.has(weight_hr) && P >= H) refuse("weight_hr", "fewer rows than there are hidden units");
  }
};

// What persists of a layer while its weights keep their kind.
template <class Real>
class Layer {
 public:
  explicit Layer(const Sizes& n)
      : plan(n.P == n.H ? Cell::lstm : Cell::variant, n.I, n.H, n.P, plain, {}),
        pool(std::make_shared<BufferPool<Real>>()) {}

  bool fits(const Sizes& n) const {
    return plan.input_size() == n.I && plan.hidden_size() == n.H && plan.output_size() == n.P;
  }

  RecurrentWeights<Real> weights(const Arguments& given) const {
    const Index I = plan.input_size(), H = plan.hidden_size(), P = plan.output_size();
    if (given.has(weight_hr) != (P != H)) refuse(names[weight_hr], "an array where there is a projection");
    RecurrentWeights<Real> w{};
    w.weight_ih = given.dense<Real>(weight_ih, {4 * H, I});
    w.weight_hh = given.dense<Real>(weight_hh, {4 * H, P});
    w.bias_ih = given.dense<Real>(bias_ih, {4 * H});
    w.bias_hh = given.dense<Real>(bias_hh, {4 * H});
    w.weight_hr = given.dense<Real>(weight_hr, {P, H});
    return w;
  }

  // A number never returned for other values. Neither an address nor a count of writes would do: whoever writes
  // through another view of the memory, as fused optimizers do, is not counted.
  std::int64_t version(const RecurrentWeights<Real>& w) {
    const Index I = plan.input_size(), H = plan.hidden_size(), P = plan.output_size();
    const std::pair<const Real*, Index> parts[] = {{w.weight_ih, 4 * H * I},
                                                   {w.weight_hh, 4 * H * P},
                                                   {w.bias_ih, 4 * H},
                                                   {w.bias_hh, 4 * H},
                                                   {w.weight_hr, P * H}};
    const std::array<bool, 2> biases{w.bias_ih != nullptr, w.bias_hh != nullptr};
    const std::lock_guard lock(mutex_);
    copy_.resize(static_cast<std::size_t>(4 * H * (I + P + 2) + P * H));
    bool changed = version_ == 0 || biases != biases_;
    Real* copy = copy_.data();
    for (const auto& [values, n] : parts) {
      const auto bytes = static_cast<std::size_t>(n) * sizeof(Real);
      if (values != nullptr && std::memcmp(copy, values, bytes) != 0) {
        std::memcpy(copy, values, bytes);
        changed = true;
      }
      copy += n;
    }
    biases_ = biases;
    return version_ += changed;
  }

  RecurrentPlan<Real> plan;
  std::shared_ptr<BufferPool<Real>> pool;

 private:
  std::mutex mutex_;
  std::int64_t version_ = 0;
  std::vector<Real> copy_;
  std::array<bool, 2> biases_{};
};

// A state as the kernels read or write it [B,width]: the caller's memory, or its rows in another order. Null is absent.
template <class Real>
class State {
 public:
  State(const Layout& layout, BufferPool<Real>& pool, Index width) : layout_(layout), pool_(pool), width_(width) {}

  const Real* read(const Real* given) {
    if (given == nullptr || !layout_.ordered()) return given;
    sorted_ = pool_.acquire(layout_.B * width_);
    layout_.sort(given, width_, sorted_.data());
    return sorted_.data();
  }

  Real* room(Real* made) {
    if (made == nullptr || !layout_.ordered()) return made;
    made_ = made;
    sorted_ = pool_.acquire(layout_.B * width_);
    return sorted_.data();
  }

  // After the kernels have written to `room`.
  void deliver() const {
    if (made_ != nullptr) layout_.unsort(sorted_.data(), width_, made_);
  }

 private:
  const Layout& layout_;
  BufferPool<Real>& pool_;
  Index width_;
  Real* made_ = nullptr;
  Buffer<Real> sorted_;
};

// A forward pass that is done: what backward needs of it, if it was recorded.
template <class Real>
struct Pass {
  std::unique_ptr<RecurrentTape<Real>> tape;
  Buffer<Real> x, y;  // [T,B,*], of packed data
};

// `y`, `h_n`, `c_n`: dense, in the caller's order.
template <class Real>
Pass<Real> run(Layer<Real>& layer, const Layout& layout, const Arguments& given, Real* y_made, Real* h_n, Real* c_n,
               bool record) {
  const Index T = layout.T, B = layout.B;
  const Index I = layer.plan.input_size(), H = layer.plan.hidden_size(), P = layer.plan.output_size();
  Pass<Real> pass;
  const Real* data = nullptr;
  RecurrentCall<Real> call{};
  call.T = T;
  call.B = B;
  if (layout.packed()) {
    data = given.dense<Real>(input, {layout.N, I});
    pass.x = layer.pool->acquire(T * B * I);
    pass.y = layer.pool->acquire(T * B * P);
    call.x = {pass.x.data(), B * I, I};
    call.y = {pass.y.data(), B * P, P};
  } else {
    call.x = layout.turned(given.view3<Real>(input, T, B, I));
    call.y = layout.turned(View3<Real>{y_made, B * P, P});
  }
  State<Real> h(layout, *layer.pool, P), c(layout, *layer.pool, H), h_last(layout, *layer.pool, P),
      c_last(layout, *layer.pool, H);
  call.h_0 = h.read(given.dense<Real>(h_0, {1, B, P}));
  call.c_0 = c.read(given.dense<Real>(c_0, {1, B, H}));
  call.lengths = layout.lengths();
  call.h_n = h_last.room(h_n);
  call.c_n = c_last.room(c_n);
  call.threads = default_threads();
  const RecurrentWeights<Real> weights = layer.weights(given);
  const std::int64_t version = layer.version(weights);
  const py::gil_scoped_release nogil;  // the arrays are held by the caller's frames
  if (layout.packed()) layout.pad(data, I, pass.x.data());
  pass.tape = layer.plan.forward(version, weights, call, record);
  if (layout.packed()) layout.unpad(pass.y.data(), P, y_made);
  h_last.deliver();
  c_last.deliver();
  return pass;
}

// The result of `call`; or the number of the argument to copy first.
template <class Call>
py::object result_or_number(const Call& call) {
  try {
    return call();
  } catch (const NeedsCopy& argument) {
    return py::int_(argument.number);
  }
}

// What forward leaves for backward. Backward may be called again: then forward runs again, too.
template <class Real>
class TensorTape {
 public:
  TensorTape(std::shared_ptr<const Exchange> exchange, std::shared_ptr<Layer<Real>> layer, Layout layout,
             Pass<Real> pass)
      : exchange_(std::move(exchange)), layer_(std::move(layer)), layout_(std::move(layout)), pass_(std::move(pass)) {}

  // (dx, dh_0, dc_0, then those of the weights); None for what is not wanted or does not exist.
  py::object backward(const py::tuple& tensors, bool need_dx, bool need_dstate) {
    return result_or_number([&] { return differentiate(Arguments(*exchange_, tensors, count), need_dx, need_dstate); });
  }

 private:
  py::object differentiate(const Arguments& given, bool need_dx, bool need_dstate) {
    const auto& plan = layer_->plan;
    const Index T = layout_.T, B = layout_.B, N = layout_.N;
    const Index I = plan.input_size(), H = plan.hidden_size(), P = plan.output_size();
    const bool packed = layout_.packed();
    RecurrentBackward<Real> args{};
    BufferPool<Real>& pool = *layer_->pool;
    layer_->weights(given);  // of the shapes that their gradients will have
    State<Real> h(layout_, pool, P), dh(layout_, pool, P), dc(layout_, pool, H);
    State<Real> dh_first(layout_, pool, P), dc_first(layout_, pool, H);
    args.h_0 = h.read(given.dense<Real>(h_0, {1, B, P}));
    args.dh_n = dh.read(given.dense<Real>(dh_n, {1, B, P}));
    args.dc_n = dc.read(given.dense<Real>(dc_n, {1, B, H}));
    args.threads = default_threads();
    const Real* dy_data = nullptr;
    if (packed) {
      dy_data = given.dense<Real>(dy, {N, P});
    } else {
      args.x = layout_.turned(given.view3<Real>(input, T, B, I));
      args.y = layout_.turned(given.view3<Real>(y, T, B, P));
      if (given.has(dy)) args.dy = layout_.turned(given.view3<Real>(dy, T, B, P));
    }
    Pass<Real> pass = std::move(pass_);  // at once: of two threads only one gets it
    if (!pass.tape) pass = run_again(given);

    py::object dx = py::none(), dh_0 = py::none(), dc_0 = py::none();
    Real* dx_data = nullptr;
    if (need_dx && packed) dx = exchange_->make({N, I}, dx_data);
    if (need_dx && !packed) dx = exchange_->make({T, B, I}, dx_data);
    if (need_dstate) {
      dh_0 = exchange_->make({1, B, P}, args.dh_0);
      dc_0 = exchange_->make({1, B, H}, args.dc_0);
      args.dh_0 = dh_first.room(args.dh_0);
      args.dc_0 = dc_first.room(args.dc_0);
    }
    RecurrentGradients<Real>& d = args.gradients;
    py::tuple result = py::make_tuple(
        std::move(dx), std::move(dh_0), std::move(dc_0), zeros(given.has(weight_ih), {4 * H, I}, d.weight_ih),
        zeros(given.has(weight_hh), {4 * H, P}, d.weight_hh), zeros(given.has(bias_ih), {4 * H}, d.bias_ih),
        zeros(given.has(bias_hh), {4 * H}, d.bias_hh), zeros(given.has(weight_hr), {P, H}, d.weight_hr));

    {
      const py::gil_scoped_release nogil;  // the arrays are held by the caller's frames and by this one
      Buffer<Real> padded_dy, padded_dx;
      if (packed) {
        args.x = {pass.x.data(), B * I, I};
        args.y = {pass.y.data(), B * P, P};
        if (dy_data != nullptr) {
          padded_dy = pool.acquire(T * B * P);
          layout_.pad(dy_data, P, padded_dy.data());
          args.dy = {padded_dy.data(), B * P, P};
        }
        if (need_dx) padded_dx = pool.acquire(T * B * I);
        args.dx = {padded_dx.data(), B * I, I};
      } else {
        args.dx = layout_.turned(View3<Real>{dx_data, B * I, I});
      }
      pass.tape->backward(args);
      if (packed && need_dx) layout_.unpad(padded_dx.data(), I, dx_data);
      dh_first.deliver();
      dc_first.deliver();
    }
    return result;
  }

  Pass<Real> run_again(const Arguments& given) {
    const Index B = layout_.B, H = layer_->plan.hidden_size(), P = layer_->plan.output_size();
    const Buffer<Real> scratch = layer_->pool->acquire(layout_.N * P + B * (P + H));
    Real* const h_n = scratch.data() + layout_.N * P;
    return run(*layer_, layout_, given, scratch.data(), h_n, h_n + B * P, true);
  }

  py::object zeros(bool wanted, std::initializer_list<Index> shape, Real*& data) const {
    if (!wanted) return py::none();
    py::object made = exchange_->make(shape, data);
    Index size = 1;
    for (const Index n : shape) size *= n;
    std::fill_n(data, size, Real{0});
    return made;
  }

  std::shared_ptr<const Exchange> exchange_;
  std::shared_ptr<Layer<Real>> layer_;
  Layout layout_;
  Pass<Real> pass_;
};

class TensorLstm {
 public:
  explicit TensorLstm(std::shared_ptr<const Exchange> exchange) : exchange_(std::move(exchange)) {}

  // (y, h_n, c_n, tape or None)
  py::object forward(const py::tuple& tensors, py::handle batch_sizes, py::handle order, bool reverse, bool record) {
    return result_or_number([&] {
      const Arguments given(*exchange_, tensors, inputs);
      return given[weight_ih].bits == 32 ? compute(float_, given, batch_sizes, order, reverse, record)
                                         : compute(double_, given, batch_sizes, order, reverse, record);
    });
  }

 private:
  template <class Real>
  py::object compute(std::shared_ptr<Layer<Real>>& kept, const Arguments& given, py::handle batch_sizes,
                     py::handle order, bool reverse, bool record) {
    const Sizes n(given);
    if (!kept || !kept->fits(n)) kept = std::make_shared<Layer<Real>>(n);
    const std::shared_ptr<Layer<Real>> layer = kept;
    Layout layout(*exchange_, given[input], batch_sizes, order, reverse);
    Real *y_data, *h_n, *c_n;
    py::object y_made =
        layout.packed() ? exchange_->make({layout.N, n.P}, y_data) : exchange_->make({layout.T, layout.B, n.P}, y_data);
    py::object h_made = exchange_->make({1, layout.B, n.P}, h_n), c_made = exchange_->make({1, layout.B, n.H}, c_n);
    Pass<Real> pass = run(*layer, layout, given, y_data, h_n, c_n, record);
    py::object tape = py::none();
    if (record)
      tape = py::cast(std::make_unique<TensorTape<Real>>(exchange_, layer, std::move(layout), std::move(pass)));
    return py::make_tuple(std::move(y_made), std::move(h_made), std::move(c_made), std::move(tape));
  }

  std::shared_ptr<const Exchange> exchange_;
  std::shared_ptr<Layer<float>> float_;
  std::shared_ptr<Layer<double>> double_;
};

template <class Real>
void bind_tape(py::module_& m, const char* name) {
  using py::arg;
  py::class_<TensorTape<Real>>(m, name).def("backward", &TensorTape<Real>::backward, arg("tensors"), arg("need_dx"),
                                            arg("need_dstate"));
}

}  // namespace

void bind_tensors(py::module_& m) {
  using py::arg;
  py::class_<Exchange, std::shared_ptr<Exchange>>(m, "Exchange");
  m.def("dlpack_exchange", &dlpack_exchange, arg("kind"));
  m.def("numpy_exchange", &numpy_exchange);
  bind_tape<float>(m, "TensorTape");
  bind_tape<double>(m, "TensorTape64");
  py::class_<TensorLstm>(m, "TensorLstm")
      .def(py::init<std::shared_ptr<Exchange>>(), arg("exchange"))
      .def("forward", &TensorLstm::forward, arg("tensors"), arg("batch_sizes").none(true), arg("order").none(true),
           arg("reverse"), arg("record"));
}

}  // namespace lstmx::bindings
