#include "plan.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "dispatch.h"

namespace lstmx {
namespace {

// A bound that keeps every size computed from two of these within an Index.
constexpr Index largest_size = Index{1} << 24;

void check_size(const char* name, Index size) {
  if (size < 1 || size > largest_size)
    throw std::invalid_argument(std::string(name) + ": expected 1 to " + std::to_string(largest_size) + ", got " +
                                std::to_string(size));
}

template <class Real>
const CellKernels<Real>& kernels_of(const TargetKernels& target, Cell cell) {
  return target.of<Real>().cells[static_cast<int>(cell)];
}

// The same from step `begin` on.
template <class View>
View from_step(View view, Index begin) {
  if (view.data != nullptr) view.data += begin * view.step;
  return view;
}

// The last step's serve beyond it.
template <class Real>
Statistics<Real> from_step(Statistics<Real> statistics, Index begin, Index H) {
  if (statistics.steps == 0) return statistics;
  const Index skipped = std::min(begin, statistics.steps - 1);
  for (int side = 0; side < 3; ++side) {
    const Index row = side < 2 ? 4 * H : H;
    statistics.mean[side] += skipped * row;
    statistics.variance[side] += skipped * row;
  }
  statistics.steps -= skipped;
  return statistics;
}

// Runs the kernel over the steps of a call or of a piece of it, from c_0 and h_0 as given.
template <class Real>
void run_forward(const CellKernels<Real>& kernels, const PackedWeights<Real>& packed, const Engine* engine,
                 BufferPool<Real>& pool, const VariantOptions& options, const RecurrentSizes& size,
                 const Schedule& schedule, const RecurrentCall<Real>& call, Real* tape) {
  RecurrentForward<Real> args{};
  args.size = size;
  args.schedule = schedule;
  packed.give(args, engine);
  args.x = call.x;
  args.h_0 = call.h_0;
  args.c_0 = call.c_0;
  args.y = call.y;
  args.h_n = call.h_n;
  args.c_n = call.c_n;
  args.cells = call.cells;
  args.gates = call.gates;
  args.tape = tape;
  args.threads = call.threads;
  args.staged = {&options, call.keep_h, call.keep_c, call.h_mask, call.running, call.made};
  const Buffer<Real> work = pool.acquire(kernels.forward_work_size(size, call.threads));
  args.work = work.data();
  kernels.forward(args);
}

}  // namespace

template <class Real>
template <class Pack>
std::shared_ptr<const Packed<Real>> PackedCache<Real>::get(const TargetKernels& target, std::int64_t version, int parts,
                                                           Index size, BufferPool<Real>& pool, const Pack& pack) {
  const std::lock_guard lock(mutex_);
  if (!latest_ || latest_->target != &target || latest_->version != version || latest_->parts != parts) {
    latest_.reset();  // its buffer may serve again
    auto packed = std::make_shared<Packed<Real>>(Packed<Real>{&target, version, parts, pool.acquire(size), true});
    packed->fits = pack(packed->buffer.data());
    latest_ = std::move(packed);
  }
  return latest_;
}

template <class Real>
template <class Pack, class Split>
PackedWeights<Real> WeightCache<Real>::get(const TargetKernels& target, std::int64_t version, int parts, Index size,
                                           Index split_size, BufferPool<Real>& pool, const Pack& pack,
                                           const Split& split) {
  PackedWeights<Real> weights;
  weights.packed = packed_.get(target, version, 0, size, pool, [&](Real* out) {
    pack(out);
    return true;
  });
  if (parts == 0) return weights;
  constexpr Index each = sizeof(Real) / sizeof(Bf16);
  const auto in_parts = split_.get(target, version, parts, (split_size + each - 1) / each, pool, [&](Real* out) {
    return split(weights.packed->buffer.data(), reinterpret_cast<Bf16*>(out));
  });
  if (in_parts->fits) weights.split = in_parts;
  return weights;
}

template <class Real>
RecurrentPlan<Real>::RecurrentPlan(Cell cell, Index input_size, Index hidden_size, Index output_size,
                                   const VariantOptions& options, const ProductSettings& settings)
    : cell_(cell), options_(options), settings_(settings), I_(input_size), H_(hidden_size), P_(output_size) {
  check_size("input_size", input_size);
  check_size("hidden_size", hidden_size);
  check_size("output_size", output_size);
  if (output_size > hidden_size) throw std::invalid_argument("output_size: expected at most hidden_size");
}

template <class Real>
Index RecurrentPlan<Real>::gate_rows() const {
  return kernels_of<Real>(active_target(), cell_).gate_rows;
}

template <class Real>
Products RecurrentPlan<Real>::products(Index B) const {
  const TargetKernels& target = active_target();
  if (kernels_of<Real>(target, cell_).split.forward == nullptr) return {nullptr, 0};
  return choose_products(target.engine, settings_, {B, {I_, P_}, 4 * H_, true});
}

template <class Real>
std::unique_ptr<RecurrentTape<Real>> RecurrentPlan<Real>::forward(std::int64_t version, RecurrentWeights<Real> weights,
                                                                  const RecurrentCall<Real>& call, bool training) {
  const TargetKernels& target = active_target();
  const CellKernels<Real>& kernels = kernels_of<Real>(target, cell_);
  weights.layer_norm = options_.layer_norm;
  Rows rows(call.T, call.B, call.lengths, call.resets, call.reset_step, call.reset_row);
  auto [engine, parts] = products(call.B);
  // both directions in parts, or none
  const auto weights_of = [&](WeightCache<Real>& cache, auto size, auto pack, auto split_size, auto split) {
    return cache.get(
        target, version, parts, size(I_, H_, P_), parts > 0 ? split_size(I_, H_, P_, parts) : 0, *pool_,
        [&](Real* out) { pack(weights, I_, H_, P_, out); },
        [&](const Real* from, Bf16* to) { return split(from, I_, H_, P_, parts, to); });
  };
  const PackedWeights<Real> packed = weights_of(forward_, kernels.pack_forward_size, kernels.pack_forward,
                                                kernels.split.forward_size, kernels.split.forward);
  if (!packed.split) engine = nullptr, parts = 0;
  PackedWeights<Real> packed_backward;
  if (training) {
    packed_backward = weights_of(backward_, kernels.pack_backward_size, kernels.pack_backward,
                                 kernels.split.backward_size, kernels.split.backward);
  }
  const RecurrentSizes size{call.T,
                            call.B,
                            I_,
                            H_,
                            P_,
                            rows.count(),
                            call.h_mask != nullptr,
                            options_.layer_norm || options_.batch_norm,
                            options_.batch_norm,
                            parts};
  if (!training) {
    run_forward<Real>(kernels, packed, engine, *pool_, options_, size, rows.schedule(), call, nullptr);
    return nullptr;
  }
  std::unique_ptr<RecurrentTape<Real>> tape(new RecurrentTape<Real>(cell_, options_, size, std::move(rows), engine));
  tape->packed_backward_ = std::move(packed_backward);
  tape->pool_ = pool_;
  const Index k = call.checkpoint_steps;
  if (k == 0 || k >= call.T) {
    tape->buffer_ = pool_->acquire(kernels.tape_size(size));
    run_forward<Real>(kernels, packed, engine, *pool_, options_, size, tape->rows_.schedule(), call,
                      tape->buffer_.data());
    return tape;
  }
  tape->checkpoint_steps_ = k;
  tape->packed_forward_ = packed;
  const Index state = call.B * H_, pieces = (call.T + k - 1) / k;
  tape->buffer_ = pool_->acquire(pieces * state);
  const Buffer<Real> h = pool_->acquire(call.B * P_);
  RecurrentCall<Real> piece = call;
  for (Index begin = 0, n = 0; begin < call.T; begin += k, ++n) {
    const Index end = std::min(begin + k, call.T);
    // c before the piece: the one given, or where the piece before has left it
    Real* c = tape->buffer_.data() + n * state;
    if (n == 0) {
      if (call.c_0 != nullptr)
        std::copy_n(call.c_0, state, c);
      else
        std::fill_n(c, state, 0.0f);
    }
    const Rows part = tape->rows_.piece(begin, end);
    piece.x = from_step(call.x, begin);
    piece.y = from_step(call.y, begin);
    piece.cells = from_step(call.cells, begin);
    piece.keep_h = from_step(call.keep_h, begin);
    piece.keep_c = from_step(call.keep_c, begin);
    piece.running = from_step(call.running, begin, H_);
    piece.made = from_step(call.made, begin, H_);
    piece.h_0 = n == 0 ? call.h_0 : h.data();
    piece.c_0 = c;
    piece.h_n = end == call.T ? call.h_n : h.data();
    piece.c_n = end == call.T ? call.c_n : c + state;
    RecurrentSizes part_size = size;
    part_size.T = end - begin;
    part_size.rows = part.count();
    // what a mask leaves of h goes to a tape
    const Buffer<Real> scratch = size.masked ? pool_->acquire(kernels.tape_size(part_size)) : Buffer<Real>();
    run_forward<Real>(kernels, packed, engine, *pool_, options_, part_size, part.schedule(), piece,
                      size.masked ? scratch.data() : nullptr);
  }
  return tape;
}

template <class Real>
RecurrentTape<Real>::RecurrentTape(Cell cell, const VariantOptions& options, RecurrentSizes size, Rows rows,
                                   const Engine* engine)
    : cell_(cell), options_(options), size_(size), rows_(std::move(rows)), engine_(engine) {}

template <class Real>
Index RecurrentTape<Real>::gate_rows() const {
  return kernels_of<Real>(active_target(), cell_).gate_rows;
}

template <class Real>
void RecurrentTape<Real>::backward(RecurrentBackward<Real> args) {
  if (!packed_backward_) throw std::logic_error("backward: was already called for this forward");
  args.staged.options = &options_;
  if (checkpoint_steps_ > 0) {
    backward_in_pieces(args);
  } else {
    const CellKernels<Real>& kernels = kernels_of<Real>(*packed_backward_.packed->target, cell_);
    const Buffer<Real> work = pool_->acquire(kernels.backward_work_size(size_, args.threads));
    args.size = size_;
    args.schedule = rows_.schedule();
    packed_backward_.give(args, engine_);
    args.tape = buffer_.data();
    args.work = work.data();
    kernels.backward(args);
  }
  packed_backward_ = packed_forward_ = {};
  buffer_ = Buffer<Real>();
}

// For each piece from the last: the forward pass once more, now with its gates, then backward through it.
template <class Real>
void RecurrentTape<Real>::backward_in_pieces(const RecurrentBackward<Real>& args) const {
  const CellKernels<Real>& kernels = kernels_of<Real>(*packed_backward_.packed->target, cell_);
  const Index T = size_.T, B = size_.B, P = size_.P, k = checkpoint_steps_;
  const Index h_state = B * P, c_state = B * size_.H, both = h_state + c_state;
  const Buffer<Real> scratch = pool_->acquire(h_state + 3 * both + k * h_state);
  Real* h_0 = scratch.data();
  Real* finals = h_0 + h_state;
  RecurrentCall<Real> again{};
  again.B = B;
  again.h_n = finals;
  again.c_n = finals + h_state;
  again.y = {finals + 3 * both, h_state, P};
  again.h_mask = args.staged.h_mask;
  again.threads = args.threads;
  RecurrentBackward<Real> piece = args;
  packed_backward_.give(piece, engine_);
  for (Index begin = (T - 1) / k * k, turn = 0; begin >= 0; begin -= k, turn ^= 1) {
    const Index end = std::min(begin + k, T);
    const Rows rows = rows_.piece(begin, end);
    RecurrentSizes size = size_;
    size.T = end - begin;
    size.rows = rows.count();
    again.x = from_step(args.x, begin);
    again.keep_h = from_step(args.staged.keep_h, begin);
    again.keep_c = from_step(args.staged.keep_c, begin);
    again.running = from_step(args.staged.running, begin, size_.H);
    again.h_0 = args.h_0;
    if (begin > 0) {
      for (Index b = 0; b < B; ++b)
        std::copy_n(args.y.data + (begin - 1) * args.y.step + b * args.y.row, P, h_0 + b * P);
      again.h_0 = h_0;
    }
    again.c_0 = buffer_.data() + begin / k * c_state;
    const Buffer<Real> tape = pool_->acquire(kernels.tape_size(size));
    run_forward<Real>(kernels, packed_forward_, engine_, *pool_, options_, size, rows.schedule(), again, tape.data());

    const Buffer<Real> work = pool_->acquire(kernels.backward_work_size(size, args.threads));
    piece.size = size;
    piece.schedule = rows.schedule();
    piece.x = again.x;
    piece.y = from_step(args.y, begin);
    piece.h_0 = again.h_0;
    piece.dy = from_step(args.dy, begin);
    piece.dcells = from_step(args.dcells, begin);
    piece.dx = from_step(args.dx, begin);
    piece.staged.keep_h = again.keep_h;
    piece.staged.keep_c = again.keep_c;
    piece.staged.running = again.running;
    // the state's gradient goes from piece to piece through two buffers in turn
    Real* carry = finals + (1 + turn) * both;
    piece.dh_0 = begin > 0 ? carry : args.dh_0;
    piece.dc_0 = begin > 0 ? carry + h_state : args.dc_0;
    piece.tape = tape.data();
    piece.work = work.data();
    kernels.backward(piece);
    piece.dh_n = carry;
    piece.dc_n = carry + h_state;
  }
}

template <class Real>
LinearPlan<Real>::LinearPlan(Index in, Index out, const ProductSettings& settings)
    : in_(in), out_(out), settings_(settings) {
  check_size("in_features", in);
  check_size("out_features", out);
}

template <class Real>
Products LinearPlan<Real>::products(Index N) const {
  const TargetKernels& target = active_target();
  if (target.of<Real>().linear.split.forward == nullptr) return {nullptr, 0};
  return choose_products(target.engine, settings_, {N, {in_}, out_, false});
}

template <class Real>
std::unique_ptr<LinearTape<Real>> LinearPlan<Real>::forward(std::int64_t version, const Real* weight, const Real* bias,
                                                            LinearForward<Real> args, bool training) {
  const TargetKernels& target = active_target();
  const LinearKernels<Real>& kernels = target.of<Real>().linear;
  Products products = this->products(args.N);
  const auto weights_of = [&](WeightCache<Real>& cache, Index size, auto pack, auto split_size, auto split) {
    const int parts = products.parts;
    return cache.get(target, version, parts, size, parts > 0 ? split_size(in_, out_, 0, parts) : 0, *pool_, pack,
                     [&](const Real* from, Bf16* to) { return split(from, in_, out_, 0, parts, to); });
  };
  const PackedWeights<Real> packed = weights_of(
      forward_, kernels.pack_forward_size(in_, out_),
      [&](Real* out) { kernels.pack_forward(weight, bias, in_, out_, out); }, kernels.split.forward_size,
      kernels.split.forward);
  if (!packed.split) products = {nullptr, 0};
  const Buffer<Real> work = pool_->acquire(kernels.work_size(in_, out_, products.parts, args.threads));
  args.in = in_;
  args.out = out_;
  args.parts = products.parts;
  args.work = work.data();
  packed.give(args, products.engine);
  kernels.forward(args);
  if (!training) return nullptr;
  return std::make_unique<LinearTape<Real>>(in_, out_, args.N, products,
                                            weights_of(
                                                backward_, kernels.pack_backward_size(in_, out_),
                                                [&](Real* out) { kernels.pack_backward(weight, in_, out_, out); },
                                                kernels.split.backward_size, kernels.split.backward),
                                            pool_);
}

template <class Real>
LinearTape<Real>::LinearTape(Index in, Index out, Index N, const Products& products, PackedWeights<Real> packed,
                             std::shared_ptr<BufferPool<Real>> pool)
    : in_(in), out_(out), N_(N), products_(products), packed_(std::move(packed)), pool_(std::move(pool)) {}

template <class Real>
void LinearTape<Real>::backward(LinearBackward<Real> args) const {
  const LinearKernels<Real>& kernels = packed_.packed->target->template of<Real>().linear;
  args.N = N_;
  args.in = in_;
  args.out = out_;
  args.parts = products_.parts;
  const Buffer<Real> work = pool_->acquire(kernels.work_size(in_, out_, products_.parts, args.threads));
  args.work = work.data();
  packed_.give(args, products_.engine);
  kernels.backward(args);
}

template class RecurrentPlan<float>;
template class RecurrentPlan<double>;
template class LinearPlan<float>;
template class LinearPlan<double>;
template class RecurrentTape<float>;
template class RecurrentTape<double>;
template class LinearTape<float>;
template class LinearTape<double>;

}  // namespace lstmx
