// Forward and backward of every target, cell and scalar against plain loops in double, without Python: outputs and, by
// central differences of a random projection, all gradients, with lengths, resets and masks. Small sizes; the Python
// tests cover the many.
#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

#include "../src/kernels/dispatch.h"
#include "../src/kernels/plan.h"
#include "check.h"

using namespace lstmx;

namespace {

constexpr double no_clip = std::numeric_limits<double>::infinity();
constexpr Activation logistic{Function::sigmoid, 0, 0}, tangent{Function::tanh, 0, 0};
constexpr VariantOptions plain{false, false, false, false, 0, no_clip, no_clip, logistic, tangent, tangent};

struct Form {
  Cell cell = Cell::lstm;
  VariantOptions options = plain;
  bool projects = false, masked = false, spans = false;  // spans: lengths and resets

  Index blocks() const { return cell == Cell::gru ? 3 : cell == Cell::rnn ? 1 : 4; }
  bool has_cells() const { return cell == Cell::lstm || cell == Cell::variant; }
};

template <class Real>
struct Case {
  using Numbers = std::vector<Real>;
  Form form;
  Index T, B, I, H, P;
  Numbers x, h_0, c_0, weight_ih, weight_hh, bias_ih, bias_hh, weight_ch, weight_hr, gain_ih, gain_hh, gain_c, bias_c;
  Numbers dy, dh_n, dc_n;  // the projection whose gradients are taken
  Numbers keep_h, keep_c, h_mask;
  std::vector<std::int64_t> lengths;
  std::vector<unsigned char> resets;
};

template <class Real>
Case<Real> make_case(const Form& form, Index T, Index B, Index I, Index H) {
  std::mt19937 g(static_cast<unsigned>(T + 10 * B + 100 * I + 1000 * H));
  const auto draw = [&g](Index n, Real low, Real high) {
    std::uniform_real_distribution<Real> uniform(low, high);
    std::vector<Real> out(static_cast<std::size_t>(n));
    for (Real& value : out) value = uniform(g);
    return out;
  };
  Case<Real> k{};
  k.form = form;
  k.form.projects = form.projects && H > 1;  // one unit has no smaller projection
  const Index P = k.form.projects ? (H + 1) / 2 : H, rows = form.blocks() * H;
  const Real half = Real(0.5);
  k.T = T, k.B = B, k.I = I, k.H = H, k.P = P;
  k.x = draw(T * B * I, -1, 1);
  k.h_0 = draw(B * P, -1, 1);
  k.c_0 = form.has_cells() ? draw(B * H, -1, 1) : k.h_0;
  k.weight_ih = draw(rows * I, -half, half);
  k.weight_hh = draw(rows * P, -half, half);
  k.bias_ih = draw(rows, -half, half);
  k.bias_hh = draw(rows, -half, half);
  if (form.options.peepholes) k.weight_ch = draw(3 * H, -half, half);
  if (k.form.projects) k.weight_hr = draw(P * H, -half, half);
  if (form.options.layer_norm) {
    k.gain_ih = draw(rows, half, 1);
    k.gain_hh = draw(rows, half, 1);
    k.gain_c = draw(H, half, 1);
    k.bias_c = draw(H, -half, half);
  }
  k.dy = draw(T * B * P, -1, 1);
  k.dh_n = draw(B * P, -1, 1);
  if (form.has_cells()) k.dc_n = draw(B * H, -1, 1);
  if (form.masked) {
    k.keep_h = draw(T * B * P, 0, 1);
    if (form.has_cells()) k.keep_c = draw(T * B * H, 0, 1);
    k.h_mask = draw(B * P, 0, 2);
  }
  if (form.spans) {
    for (Index b = 0; b < B; ++b) k.lengths.push_back((b * 3 + 1) % (T + 1));
    for (Index n = 0; n < T * B; ++n) k.resets.push_back(n % 5 == 2);
  }
  return k;
}

double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }
double clipped(double x, double most) { return std::min(most, std::max(-most, x)); }

// n numbers become gain times what has mean 0 and variance 1
template <class Real>
void normalize(double* x, Index n, const Real* gain, double eps) {
  double mean = 0.0, variance = 0.0;
  for (Index j = 0; j < n; ++j) mean += x[j] / double(n);
  for (Index j = 0; j < n; ++j) variance += (x[j] - mean) * (x[j] - mean) / double(n);
  for (Index j = 0; j < n; ++j) x[j] = gain[j] * (x[j] - mean) / std::sqrt(variance + eps);
}

// sum(dy * y) + sum(dh_n * h_n) + sum(dc_n * c_n), and y itself if wanted
template <class Real>
double projection(const Case<Real>& k, std::vector<double>* y_out = nullptr) {
  const VariantOptions& o = k.form.options;
  const Index H = k.H, P = k.P;
  double total = 0.0;
  for (Index b = 0; b < k.B; ++b) {
    std::vector<double> h(k.h_0.begin() + b * P, k.h_0.begin() + (b + 1) * P);
    std::vector<double> c(k.c_0.begin() + b * H, k.c_0.begin() + (b + 1) * H);
    for (Index t = 0; t < (k.lengths.empty() ? k.T : k.lengths[b]); ++t) {
      if (!k.resets.empty() && k.resets[t * k.B + b]) {
        std::fill(h.begin(), h.end(), 0.0);
        std::fill(c.begin(), c.end(), 0.0);
      }
      // the products with x and with h, apart, each with its bias
      std::vector<double> from_x(static_cast<std::size_t>(k.form.blocks() * H)), from_h(from_x), out(c);
      for (Index r = 0; r < k.form.blocks() * H; ++r) {
        for (Index i = 0; i < k.I; ++i) from_x[r] += double(k.weight_ih[r * k.I + i]) * k.x[(t * k.B + b) * k.I + i];
        for (Index i = 0; i < P; ++i)
          from_h[r] += k.weight_hh[r * P + i] * h[i] * (k.h_mask.empty() ? 1.0 : double(k.h_mask[b * P + i]));
      }
      for (Index gate = 0; o.layer_norm && gate < 4; ++gate) {
        normalize(&from_x[gate * H], H, &k.gain_ih[gate * H], o.eps);
        normalize(&from_h[gate * H], H, &k.gain_hh[gate * H], o.eps);
      }
      for (Index r = 0; r < k.form.blocks() * H; ++r) {
        from_x[r] += k.bias_ih[r];
        from_h[r] += k.bias_hh[r];
      }
      std::vector<double> seen(c), opened(c);  // what h sees of c; o
      const auto z = [&](Index gate, Index j) { return from_x[gate * H + j] + from_h[gate * H + j]; };
      const auto gate_of = [&](double x) { return sigmoid(clipped(x, o.gate_clip)); };
      for (Index j = 0; j < H; ++j) {
        if (k.form.cell == Cell::rnn) {
          out[j] = std::tanh(z(0, j));
        } else if (k.form.cell == Cell::gru) {
          const double n = std::tanh(from_x[2 * H + j] + sigmoid(z(0, j)) * from_h[2 * H + j]), u = sigmoid(z(1, j));
          out[j] = (1.0 - u) * n + u * h[j];
        } else {
          const auto peephole = [&](Index e) { return o.peepholes ? double(k.weight_ch[e * H + j]) : 0.0; };
          const double input = gate_of(z(0, j) + peephole(0) * c[j]);
          const double forget = o.coupled ? 1.0 - input : gate_of(z(1, j) + peephole(1) * c[j]);
          const double candidate = std::tanh(clipped(z(2, j), o.gate_clip));
          const double cell = clipped(forget * c[j] + input * candidate, o.cell_clip);
          seen[j] = cell;
          opened[j] = gate_of(z(3, j) + peephole(2) * cell);
          const double kept = k.keep_c.empty() ? 0.0 : double(k.keep_c[(t * k.B + b) * H + j]);
          c[j] = kept * c[j] + (1.0 - kept) * cell;
        }
      }
      if (o.layer_norm) {
        normalize(seen.data(), H, k.gain_c.data(), o.eps);
        for (Index j = 0; j < H; ++j) seen[j] += k.bias_c[j];
      }
      for (Index j = 0; k.form.has_cells() && j < H; ++j) out[j] = opened[j] * std::tanh(seen[j]);
      for (Index j = 0; j < P; ++j) {
        double value = k.form.projects ? 0.0 : out[j];
        for (Index u = 0; k.form.projects && u < H; ++u) value += k.weight_hr[j * H + u] * out[u];
        const double kept = k.keep_h.empty() ? 0.0 : double(k.keep_h[(t * k.B + b) * P + j]);
        h[j] = kept * h[j] + (1.0 - kept) * value;
        total += k.dy[(t * k.B + b) * P + j] * h[j];
        if (y_out) (*y_out)[(t * k.B + b) * P + j] = h[j];
      }
    }
    for (Index j = 0; j < P; ++j) total += k.dh_n[b * P + j] * h[j];
    for (Index j = 0; j < H && k.form.has_cells(); ++j) total += k.dc_n[b * H + j] * c[j];
  }
  return total;
}

// the analytic gradient of every `stride`-th element of `values` against a central difference
template <class Real>
void check_gradient(Case<Real>& k, std::vector<Real> Case<Real>::* values, const std::vector<Real>& gradient,
                    std::size_t stride) {
  constexpr bool narrow = std::is_same_v<Real, float>;
  for (std::size_t n = 0; n < gradient.size(); n += stride) {
    Real& value = (k.*values)[n];
    const Real kept = value, step = narrow ? Real(1) / 128 : Real(1e-5);
    value = kept + step;
    const double above = projection(k), upper = value;
    value = kept - step;
    const double below = projection(k), lower = value;
    value = kept;
    const double numeric = (above - below) / (upper - lower);
    CHECK(std::abs(numeric - gradient[n]) < (narrow ? 2e-3 : 1e-8) * (1.0 + std::abs(numeric)));
  }
}

template <class Real>
void check_case(const Form& form, Index T, Index B, Index I, Index H, int threads, Index checkpoint_steps = 0) {
  Case<Real> k = make_case<Real>(form, T, B, I, H);
  const Index P = k.P;
  const auto zeros = [](std::size_t n) { return std::vector<Real>(n, Real(0)); };
  const auto or_null = [](auto& numbers) { return numbers.empty() ? nullptr : numbers.data(); };
  auto y = zeros(k.dy.size()), h_n = zeros(k.h_0.size()), c_n = zeros(k.c_0.size());
  RecurrentPlan<Real> plan(form.cell, I, H, P, form.options, {});
  RecurrentCall<Real> call{};
  call.T = T;
  call.B = B;
  call.x = {k.x.data(), B * I, I};
  call.h_0 = k.h_0.data();
  call.c_0 = k.c_0.data();
  call.lengths = or_null(k.lengths);
  call.resets = or_null(k.resets);
  call.reset_step = B;
  call.reset_row = 1;
  call.y = {y.data(), B * P, P};
  call.h_n = h_n.data();
  call.c_n = c_n.data();
  call.keep_h = {or_null(k.keep_h), B * P, P};
  call.keep_c = {or_null(k.keep_c), B * H, H};
  call.h_mask = or_null(k.h_mask);
  call.checkpoint_steps = checkpoint_steps;
  call.threads = threads;
  const RecurrentWeights<Real> weights{
      k.weight_ih.data(),   k.weight_hh.data(), k.bias_ih.data(),   k.bias_hh.data(),  or_null(k.weight_ch),
      or_null(k.weight_hr), or_null(k.gain_ih), or_null(k.gain_hh), or_null(k.gain_c), or_null(k.bias_c)};
  const auto tape = plan.forward(1, weights, call, true);

  std::vector<double> exact(y.size());
  projection(k, &exact);
  const double near = std::is_same_v<Real, float> ? 2e-6 : 1e-14;
  for (std::size_t n = 0; n < y.size(); ++n) CHECK(std::abs(y[n] - exact[n]) < near);

  auto dx = zeros(k.x.size()), dh_0 = zeros(k.h_0.size()), dc_0 = zeros(k.c_0.size());
  auto d_weight_ih = zeros(k.weight_ih.size()), d_weight_hh = zeros(k.weight_hh.size());
  auto d_bias_ih = zeros(k.bias_ih.size()), d_bias_hh = zeros(k.bias_hh.size());
  auto d_weight_ch = zeros(k.weight_ch.size()), d_weight_hr = zeros(k.weight_hr.size());
  auto d_gain_ih = zeros(k.gain_ih.size()), d_gain_hh = zeros(k.gain_hh.size());
  auto d_gain_c = zeros(k.gain_c.size()), d_bias_c = zeros(k.bias_c.size());
  RecurrentBackward<Real> backward{};
  backward.x = call.x;
  backward.y = {y.data(), B * P, P};
  backward.h_0 = k.h_0.data();
  backward.dy = {k.dy.data(), B * P, P};
  backward.dh_n = k.dh_n.data();
  backward.dc_n = or_null(k.dc_n);
  backward.dx = {dx.data(), B * I, I};
  backward.dh_0 = dh_0.data();
  backward.dc_0 = dc_0.data();
  backward.gradients = {d_weight_ih.data(),   d_weight_hh.data(),   d_bias_ih.data(),   d_bias_hh.data(),
                        or_null(d_weight_ch), or_null(d_weight_hr), or_null(d_gain_ih), or_null(d_gain_hh),
                        or_null(d_gain_c),    or_null(d_bias_c)};
  backward.threads = threads;
  backward.staged.keep_h = call.keep_h;
  backward.staged.keep_c = call.keep_c;
  backward.staged.h_mask = call.h_mask;
  tape->backward(backward);
  CHECK(throws<std::logic_error>([&] { tape->backward(backward); }, "already called"));

  if (!form.has_cells()) {  // h is c
    for (std::size_t n = 0; n < dh_0.size(); ++n) dh_0[n] += dc_0[n];
    dc_0.clear();
  }
  check_gradient(k, &Case<Real>::x, dx, 3);
  check_gradient(k, &Case<Real>::h_0, dh_0, 2);
  check_gradient(k, &Case<Real>::c_0, dc_0, 2);
  check_gradient(k, &Case<Real>::weight_ih, d_weight_ih, 7);
  check_gradient(k, &Case<Real>::weight_hh, d_weight_hh, 11);
  check_gradient(k, &Case<Real>::bias_ih, d_bias_ih, 3);
  check_gradient(k, &Case<Real>::bias_hh, d_bias_hh, 3);
  check_gradient(k, &Case<Real>::weight_ch, d_weight_ch, 2);
  check_gradient(k, &Case<Real>::weight_hr, d_weight_hr, 5);
  check_gradient(k, &Case<Real>::gain_ih, d_gain_ih, 3);
  check_gradient(k, &Case<Real>::gain_hh, d_gain_hh, 3);
  check_gradient(k, &Case<Real>::gain_c, d_gain_c, 2);
  check_gradient(k, &Case<Real>::bias_c, d_bias_c, 2);
}

template <class Real>
void check_cells() {
  VariantOptions all = plain;
  all.coupled = all.peepholes = true;
  all.gate_clip = 6;  // clips reach no element here: a difference across a kink is none
  all.cell_clip = 5;
  VariantOptions normalized = plain, all_normalized = all;
  normalized.layer_norm = all_normalized.layer_norm = true;
  normalized.eps = all_normalized.eps = 0.1;
  const Form forms[] = {
      {Cell::lstm},
      {Cell::lstm, plain, false, false, true},
      {Cell::variant, all, true, true, true},
      {Cell::variant, all, false, true},
      {Cell::variant, normalized},
      {Cell::variant, all_normalized, true, true, true},
      {Cell::gru},
      {Cell::gru, plain, false, true, true},
      {Cell::rnn, plain, false, true, true},
  };
  for (const Form& form : forms) {
    for (const int threads : {1, 2}) {
      check_case<Real>(form, 1, 1, 1, 1, threads);
      check_case<Real>(form, 3, 2, 5, 7, threads);
      check_case<Real>(form, 2, 9, 3, 17, threads);
      check_case<Real>(form, 4, 1, 8, 16, threads);
      check_case<Real>(form, 5, 3, 4, 9, threads, 2);
    }
  }
}

// positions in descending order of length, equal ones in the order given; pieces as sequences of their own
void check_rows() {
  const std::int64_t lengths[] = {2, 0, 4, 2};
  const Rows rows(4, 4, lengths, nullptr, 0, 0);
  const Schedule s = rows.schedule();
  CHECK(rows.count() == 8);
  CHECK(s.order[0] == 2 && s.order[1] == 0 && s.order[2] == 3 && s.order[3] == 1);
  CHECK(s.alive[0] == 3 && s.alive[1] == 3 && s.alive[2] == 1 && s.alive[3] == 1 && s.alive[4] == 0);
  CHECK(s.first[0] == 0 && s.first[2] == 6 && s.first[4] == 8);
  const Rows piece = rows.piece(1, 3);
  CHECK(piece.count() == 4 && piece.schedule().alive[0] == 3 && piece.schedule().length[0] == 2);
}

void check_sizes() {
  const auto refuses = [](Index I, Index H, Index P, const char* name) {
    return throws<std::invalid_argument>([=] { RecurrentPlan<float>(Cell::lstm, I, H, P, plain, {}); }, name);
  };
  CHECK(refuses(0, 4, 4, "input_size"));
  CHECK(refuses(4, Index{1} << 40, 4, "hidden_size"));
  CHECK(refuses(4, 4, 5, "output_size"));
}

}  // namespace

int main() {
  for (const TargetKernels* target : supported_targets()) {
    set_active_target(target->name);
    check_cells<float>();
    check_cells<double>();
  }
  check_rows();
  check_sizes();
  return 0;
}
