// Engines by themselves: sums of products of parts, the order in which a tile product adds, rows that do not depend on
// what stands beside them; and the rule by which they are chosen.
#include <cmath>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "../src/kernels/dispatch.h"
#include "../src/kernels/products.h"
#include "check.h"

using namespace lstmx;

namespace {

constexpr Index tile = tile_size, result = result_size;

float widened(Bf16 x) {
  const uint32_t bits = uint32_t{x} << 16;
  float f;
  std::memcpy(&f, &bits, sizeof f);
  return f;
}

Bf16 narrowed(float f) {
  uint32_t bits;
  std::memcpy(&bits, &f, sizeof bits);
  return static_cast<Bf16>(bits >> 16);
}

// Tiles of both kinds, of numbers whose later parts are as much smaller as real ones are.
struct Operands {
  int parts;
  Index blocks;
  std::vector<Bf16> a, b;  // two tiles of rows, four of columns

  Operands(int n, Index k, unsigned seed) : parts(n), blocks(k), a(2 * k * n * tile), b(4 * k * n * tile) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (std::vector<Bf16>* operand : {&a, &b}) {
      for (Index i = 0; i < static_cast<Index>(operand->size()); ++i)
        (*operand)[i] = narrowed(std::ldexp(normal(random), static_cast<int>(-8 * (i / tile % parts))));
    }
  }

  // of row m and column n, all parts that count
  double sum(Index m, Index n) const {
    double total = 0;
    for (Index k = 0; k < blocks; ++k) {
      for (int i = 0; i < parts; ++i) {
        for (int j = 0; i + j < parts; ++j) {
          const Bf16* row = &a[((m / 16 * blocks + k) * parts + i) * tile + m % 16 * 32];
          const Bf16* column = &b[((n / 16 * blocks + k) * parts + j) * tile + n % 16 * 2];
          for (Index p = 0; p < 16; ++p) {
            total += double(widened(row[2 * p])) * widened(column[32 * p]) +
                     double(widened(row[2 * p + 1])) * widened(column[32 * p + 1]);
          }
        }
      }
    }
    return total;
  }

  // `rows` rows from the tile `first` on; c has room for four tiles
  void multiply(const Engine& engine, Index first, Index rows, float* c) const {
    TileProduct t{};
    for (Index i = 0; first + i < 2; ++i) t.a[i] = &a[(first + i) * blocks * parts * tile];
    for (Index j = 0; j < 4; ++j) t.b[j] = &b[j * blocks * parts * tile];
    t.blocks = blocks;
    t.rows = rows;
    t.c = c;
    engine.multiply[parts - 1](t);
  }
};

void check_sums(const Engine& engine, int parts) {
  for (const Index blocks : {1, 3}) {
    const Operands operands(parts, blocks, 17u * static_cast<unsigned>(blocks));
    std::vector<float> square(4 * result), row(4 * result);
    operands.multiply(engine, 0, 27, square.data());  // two tiles of rows by two of columns
    for (Index m = 0; m < 27; ++m) {
      for (Index n = 0; n < 32; ++n) {
        const double got = square[(m / 16 * 2 + n / 16) * result + m % 16 * 16 + n % 16];
        CHECK(std::abs(got - operands.sum(m, n)) < 1e-4);
      }
    }
    for (const Index first : {0, 1}) {  // one by four: the same bits
      operands.multiply(engine, first, 11, row.data());
      for (Index m = 0; m < 11; ++m) {
        for (Index n = 0; n < 64; ++n) {
          const float got = row[n / 16 * result + m * 16 + n % 16];
          CHECK(std::abs(got - operands.sum(first * 16 + m, n)) < 1e-4);
          if (n < 32) CHECK(got == square[(first * 2 + n / 16) * result + m * 16 + n % 16]);
        }
      }
    }
  }
}

// 1, then 2^-24 in every other place: a chain of the even numbers of pairs keeps 1, that of the odd ones has 2^-20.
void check_order_of_tiles() {
  std::vector<Bf16> a(tile), b(tile, narrowed(1.0f));
  for (Index p = 0; p < 16; ++p) a[2 * p] = a[2 * p + 1] = narrowed(std::ldexp(1.0f, -24));
  a[0] = narrowed(1.0f);
  std::vector<float> c(4 * result);
  TileProduct t{{a.data()}, {b.data(), b.data(), b.data(), b.data()}, 1, 1, c.data()};
  engine_emulated.multiply[0](t);
  CHECK(c[0] == 1.0f + std::ldexp(1.0f, -20));
}

void check_choice() {
  const auto choice = [](const Engine& engine, const char* precision, const char* wish, Index rows, Index I, Index H) {
    ProductSettings settings;
    settings.precision = precision_of("precision", precision);
    settings.wish = wish_of(wish);
    const Products products = choose_products(&engine, settings, {rows, {I, H}, 4 * H, true});
    CHECK((products.engine == nullptr) == (products.parts == 0));
    return products.parts;
  };
  const auto& amx = engine_amx;
  CHECK(choice(amx, "highest", "auto", 48, 96, 160) == 3);  // full tiles
  CHECK(choice(amx, "high", "auto", 48, 96, 160) == 2);
  CHECK(choice(amx, "medium", "auto", 48, 96, 160) == 1);
  CHECK(choice(amx, "highest", "fma", 48, 96, 160) == 0);
  CHECK(choice(amx, "highest", "auto", 24, 12, 40) == 0);  // two fifths of the tiles are numbers
  CHECK(choice(amx, "highest", "auto", 1, 64, 192) == 0);  // one row in sixteen is
  CHECK(choice(amx, "medium", "auto", 8, 64, 192) == 1);
  CHECK(choice(amx, "highest", "tiles", 1, 1, 1) == 3);
  const auto& dots = engine_avx512_bf16;
  CHECK(choice(dots, "highest", "auto", 48, 96, 160) == 0 && choice(dots, "high", "tiles", 48, 96, 160) == 0);
  CHECK(choice(dots, "medium", "auto", 8, 96, 160) == 1);
  CHECK(choice(dots, "medium", "auto", 1, 96, 160) == 0);
  CHECK(choice(dots, "medium", "auto", 50, 10, 10) == 0);
  CHECK(choose_products(nullptr, {}, {48, {96, 160}, 640, true}).engine == nullptr);
  CHECK(throws<std::invalid_argument>([] { precision_of("x", "exact"); }, "x: expected one of highest, high, medium"));
  CHECK(throws<std::invalid_argument>([] { wish_of("gpu"); }, "engine: expected one of auto, fma, tiles"));
}

}  // namespace

int main() {
#if LSTMX_X86
  for (const TargetKernels* target : supported_targets()) {
    if (target->engine == nullptr) continue;
    target->engine->enter();
    for (const int parts : {1, 2, 3}) {
      if (target->engine->multiply[parts - 1] != nullptr) check_sums(*target->engine, parts);
    }
    target->engine->leave();
    if (target->engine == &engine_emulated) check_order_of_tiles();
  }
  check_choice();
#endif
  return 0;
}
