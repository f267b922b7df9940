// Forward and backward of every target against plain loops in double, without Python: outputs, final states and, by
// central differences of a random projection, all gradients. Small sizes; the Python tests cover the many.
#include <cmath>
#include <random>
#include <vector>

#include "../src/kernels/dispatch.h"
#include "../src/kernels/plan.h"
#include "check.h"

using namespace lstmx;

namespace {

using Floats = std::vector<float>;

struct Case {
  Index T, B, I, H;
  Floats x, h_0, c_0, weight_ih, weight_hh, bias_ih, bias_hh;
  Floats dy, dh_n, dc_n;  // the projection whose gradients are taken
};

Floats random_floats(std::mt19937& generator, Index n, float scale) {
  std::uniform_real_distribution<float> draw(-scale, scale);
  Floats out(static_cast<std::size_t>(n));
  for (float& value : out) value = draw(generator);
  return out;
}

Case make_case(Index T, Index B, Index I, Index H) {
  std::mt19937 g(static_cast<unsigned>(T + 10 * B + 100 * I + 1000 * H));
  return {T,
          B,
          I,
          H,
          random_floats(g, T * B * I, 1),
          random_floats(g, B * H, 1),
          random_floats(g, B * H, 1),
          random_floats(g, 4 * H * I, 0.5f),
          random_floats(g, 4 * H * H, 0.5f),
          random_floats(g, 4 * H, 0.5f),
          random_floats(g, 4 * H, 0.5f),
          random_floats(g, T * B * H, 1),
          random_floats(g, B * H, 1),
          random_floats(g, B * H, 1)};
}

double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

// sum(dy * y) + sum(dh_n * h_n) + sum(dc_n * c_n), and y itself if wanted
double projection(const Case& k, std::vector<double>* y_out = nullptr) {
  double total = 0.0;
  for (Index b = 0; b < k.B; ++b) {
    std::vector<double> h(k.h_0.begin() + b * k.H, k.h_0.begin() + (b + 1) * k.H);
    std::vector<double> c(k.c_0.begin() + b * k.H, k.c_0.begin() + (b + 1) * k.H);
    for (Index t = 0; t < k.T; ++t) {
      std::vector<double> z(static_cast<std::size_t>(4 * k.H));
      for (Index r = 0; r < 4 * k.H; ++r) {
        z[r] = double(k.bias_ih[r]) + k.bias_hh[r];
        for (Index i = 0; i < k.I; ++i) z[r] += double(k.weight_ih[r * k.I + i]) * k.x[(t * k.B + b) * k.I + i];
        for (Index i = 0; i < k.H; ++i) z[r] += double(k.weight_hh[r * k.H + i]) * h[i];
      }
      for (Index j = 0; j < k.H; ++j) {
        c[j] = sigmoid(z[k.H + j]) * c[j] + sigmoid(z[j]) * std::tanh(z[2 * k.H + j]);
        h[j] = sigmoid(z[3 * k.H + j]) * std::tanh(c[j]);
        total += k.dy[(t * k.B + b) * k.H + j] * h[j];
        if (y_out) (*y_out)[(t * k.B + b) * k.H + j] = h[j];
      }
    }
    for (Index j = 0; j < k.H; ++j) total += k.dh_n[b * k.H + j] * h[j] + k.dc_n[b * k.H + j] * c[j];
  }
  return total;
}

// the analytic gradient of every `stride`-th element of `values` against a central difference
void check_gradient(Case& k, Floats Case::* values, const Floats& gradient, std::size_t stride) {
  for (std::size_t n = 0; n < gradient.size(); n += stride) {
    float& value = (k.*values)[n];
    const float kept = value, step = 1.0f / 128;
    value = kept + step;
    const double above = projection(k), upper = value;
    value = kept - step;
    const double below = projection(k), lower = value;
    value = kept;
    const double numeric = (above - below) / (upper - lower);
    CHECK(std::abs(numeric - gradient[n]) < 2e-3 * (1.0 + std::abs(numeric)));
  }
}

void check_case(Index T, Index B, Index I, Index H, int threads, Index checkpoint_steps = 0) {
  Case k = make_case(T, B, I, H);
  const auto zeros = [](Index n) { return Floats(static_cast<std::size_t>(n), 0.0f); };
  Floats y = zeros(T * B * H), h_n = zeros(B * H), c_n = zeros(B * H);
  RecurrentPlan<float> plan(Cell::lstm, I, H);
  RecurrentCall<float> call{};
  call.T = T;
  call.B = B;
  call.x = {k.x.data(), B * I, I};
  call.h_0 = k.h_0.data();
  call.c_0 = k.c_0.data();
  call.y = {y.data(), B * H, H};
  call.h_n = h_n.data();
  call.c_n = c_n.data();
  call.checkpoint_steps = checkpoint_steps;
  call.threads = threads;
  const RecurrentWeights<float> weights{k.weight_ih.data(), k.weight_hh.data(), k.bias_ih.data(), k.bias_hh.data()};
  const auto tape = plan.forward(1, weights, call, true);

  std::vector<double> exact(y.size());
  projection(k, &exact);
  for (std::size_t n = 0; n < y.size(); ++n) CHECK(std::abs(y[n] - exact[n]) < 2e-6);

  Floats dx = zeros(T * B * I), dh_0 = zeros(B * H), dc_0 = zeros(B * H);
  Floats d_weight_ih = zeros(4 * H * I), d_weight_hh = zeros(4 * H * H), d_bias_ih = zeros(4 * H),
         d_bias_hh = zeros(4 * H);
  RecurrentBackward<float> backward{};
  backward.x = call.x;
  backward.y = {y.data(), B * H, H};
  backward.h_0 = k.h_0.data();
  backward.dy = {k.dy.data(), B * H, H};
  backward.dh_n = k.dh_n.data();
  backward.dc_n = k.dc_n.data();
  backward.dx = {dx.data(), B * I, I};
  backward.dh_0 = dh_0.data();
  backward.dc_0 = dc_0.data();
  backward.gradients = {d_weight_ih.data(), d_weight_hh.data(), d_bias_ih.data(), d_bias_hh.data()};
  backward.threads = threads;
  tape->backward(backward);
  CHECK(throws<std::logic_error>([&] { tape->backward(backward); }, "already called"));

  check_gradient(k, &Case::x, dx, 3);
  check_gradient(k, &Case::h_0, dh_0, 2);
  check_gradient(k, &Case::c_0, dc_0, 2);
  check_gradient(k, &Case::weight_ih, d_weight_ih, 7);
  check_gradient(k, &Case::weight_hh, d_weight_hh, 11);
  check_gradient(k, &Case::bias_ih, d_bias_ih, 3);
  check_gradient(k, &Case::bias_hh, d_bias_hh, 3);
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

}  // namespace

int main() {
  for (const TargetKernels* target : supported_targets()) {
    set_active_target(target->name);
    for (const int threads : {1, 2}) {
      check_case(1, 1, 1, 1, threads);
      check_case(3, 2, 5, 7, threads);
      check_case(2, 9, 3, 17, threads);
      check_case(4, 1, 8, 16, threads);
      check_case(5, 3, 4, 9, threads, 2);
    }
  }
  check_rows();
  CHECK(throws<std::invalid_argument>([] { RecurrentPlan<float>(Cell::lstm, 0, 4); }, "input_size"));
  CHECK(throws<std::invalid_argument>([] { RecurrentPlan<float>(Cell::lstm, 4, Index{1} << 40); }, "hidden_size"));
  return 0;
}
