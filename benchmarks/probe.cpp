// What this machine can do, measured in SECONDS: the limits that a kernel is compared with. Not a library: a program.
//
//   c++ -std=c++17 -O3 -ffp-contract=fast -march=... -DWIDTH=16 probe.cpp -pthread -o probe && ./probe THREADS SECONDS
//
// Prints JSON: rates are sums over all threads, latencies those of one; WIDTH is the floats of a vector register.
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

namespace {

typedef float Vec __attribute__((vector_size(4 * WIDTH), aligned(4)));
typedef int IntVec __attribute__((vector_size(4 * WIDTH)));

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Keeps a value alive and its computation in place.
template <class T>
void keep(T& value) {
  asm volatile("" : "+m"(value) : : "memory");
}

Vec all(float value) { return Vec{} + value; }

// Calls block() until `budget` has passed; returns seconds a call in the best slice of about a millisecond: what the
// machine can do, not what its other users left.
template <class Block>
double seconds_per_call(double budget, Block block) {
  block();
  double best = 1e9;
  for (const auto start = Clock::now(); seconds_since(start) < budget;) {
    long calls = 0;
    double elapsed = 0;
    for (const auto slice = Clock::now(); elapsed < 1e-3; elapsed = seconds_since(slice), ++calls) block();
    if (elapsed / calls < best) best = elapsed / calls;
  }
  return best;
}

constexpr int kChains = 12;  // enough to hide the latency of two pipes, few enough for 16 registers
constexpr int kLoop = 4096;

double flops_per_second(double budget) {
  Vec sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = all(0.1f * i);
  Vec factor = all(0.9f), addend = all(0.1f);
  keep(factor), keep(addend);
  const double seconds = seconds_per_call(budget, [&] {
    Vec s[kChains];
    for (int i = 0; i < kChains; ++i) s[i] = sums[i];
    for (int n = 0; n < kLoop; ++n) {
#pragma GCC unroll 12
      for (int i = 0; i < kChains; ++i) s[i] = s[i] * factor + addend;
    }
    for (int i = 0; i < kChains; ++i) sums[i] = s[i];
    keep(sums);
  });
  return 2.0 * WIDTH * kChains * kLoop / seconds;
}

double multiply_add_latency(double budget) {
  Vec sum = all(0.5f), factor = all(0.9f), addend = all(0.1f);
  keep(factor), keep(addend);
  return seconds_per_call(budget,
                          [&] {
                            for (int n = 0; n < kLoop; ++n) {
                              sum = sum * factor + addend;
                              asm volatile("" : "+x"(sum));  // one chain: the loop may not be turned into another
                            }
                          }) /
         kLoop;
}

double bytes_per_second(double budget, long bytes) {
  std::vector<float> data(bytes / 4 + 16, 1.0f);
  const float* begin = data.data();
  begin += (64 - reinterpret_cast<unsigned long>(begin) % 64) % 64 / 4;
  const long vectors = bytes / 4 / WIDTH / 8 * 8;
  const double seconds = seconds_per_call(budget, [&] {
    Vec sums[8] = {};
    for (long k = 0; k < vectors; k += 8) {
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) sums[i] += *reinterpret_cast<const Vec*>(begin + (k + i) * WIDTH);
    }
    keep(sums);
  });
  return 4.0 * WIDTH * vectors / seconds;
}

// e^x for -80 <= x <= 80: 2^n times a polynomial on [-ln2/2, ln2/2].
Vec exponential(Vec x) {
  const Vec magic = all(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  Vec shifted = x * 1.44269504f + magic;
  Vec n = shifted - magic;
  Vec r = x - n * 0.693147181f;
  Vec p = all(1.0f / 720);
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  return (Vec)((IntVec)p + ((IntVec)shifted << 23));
}

Vec sigmoid(Vec x) { return 1.0f / (1.0f + exponential(-x)); }
Vec tangent(Vec x) { return 2.0f / (1.0f + exponential(-2.0f * x)) - 1.0f; }

// Three sigmoids and two tanh: what lies between the products of a step and its h.
Vec cell(Vec i, Vec f, Vec g, Vec o, Vec& c) {
  c = sigmoid(f) * c + sigmoid(i) * tangent(g);
  return sigmoid(o) * tangent(c);
}

double cells_per_second(double budget) {
  constexpr int kVectors = 32;  // six arrays that fit in L1
  static thread_local Vec gates[4][kVectors], c[kVectors], h[kVectors];
  for (int k = 0; k < kVectors; ++k) {
    for (int gate = 0; gate < 4; ++gate) gates[gate][k] = all(0.03f * (k - 16) + gate);
    c[k] = all(0.1f);
  }
  const double seconds = seconds_per_call(budget, [&] {
    for (int k = 0; k < kVectors; ++k) h[k] = cell(gates[0][k], gates[1][k], gates[2][k], gates[3][k], c[k]);
    asm volatile("" : : "r"(h), "r"(c), "r"(gates) : "memory");
  });
  return double(WIDTH) * kVectors / seconds;
}

double cell_latency(double budget) {
  Vec h = all(0.1f), c = all(0.1f), bias = all(0.2f);
  keep(bias);
  return seconds_per_call(budget,
                          [&] {
                            for (int n = 0; n < 256; ++n) h = cell(h + bias, h - bias, h, h + bias, c);
                            keep(h);
                          }) /
         256;
}

// The sum over `threads` threads that measure at the same time.
template <class Measure>
double sum_over_threads(int threads, Measure measure) {
  std::vector<double> rates(threads);
  std::atomic<int> waiting{threads};
  std::vector<std::thread> team;
  for (int id = 0; id < threads; ++id) {
    team.emplace_back([&, id] {
      --waiting;
      while (waiting.load() > 0) std::this_thread::yield();
      rates[id] = measure();
    });
  }
  for (auto& thread : team) thread.join();
  double sum = 0;
  for (double rate : rates) sum += rate;
  return sum;
}

long cache_bytes(int name, long otherwise) {
  const long bytes = sysconf(name);
  return bytes > 0 ? bytes : otherwise;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return std::fprintf(stderr, "usage: probe THREADS SECONDS\n"), 2;
  const int threads = std::atoi(argv[1]);
  const double budget = std::atof(argv[2]) / 6;
  const long l1 = cache_bytes(_SC_LEVEL1_DCACHE_SIZE, 32 << 10), l2 = cache_bytes(_SC_LEVEL2_CACHE_SIZE, 1 << 20);
  std::printf("{\"flops\": %.4g, ", sum_over_threads(threads, [=] { return flops_per_second(budget); }));
  std::printf("\"l2_bytes_per_s\": %.4g, ",
              sum_over_threads(threads, [=] { return bytes_per_second(budget, l2 / 2); }));
  std::printf("\"l3_bytes_per_s\": %.4g, ",
              sum_over_threads(threads, [=] { return bytes_per_second(budget, l2 * 4); }));
  std::printf("\"cells_per_s\": %.4g, ", sum_over_threads(threads, [=] { return cells_per_second(budget); }));
  std::printf("\"multiply_add_s\": %.4g, \"cell_s\": %.4g, ", multiply_add_latency(budget), cell_latency(budget));
  std::printf("\"l1_bytes\": %ld, \"l2_bytes\": %ld}\n", l1, l2);
}
