// The engine amx: bf16 products in tile registers. `gain` is the study's on Sapphire Rapids, of products of 64 by 1024
// by 256: 1859, 740 and 334 GF/s beside 170 of multiply-add units.
#if !defined(__AMX_TILE__) || !defined(__AMX_BF16__)
#error "engines/amx.cpp needs -mamx-tile -mamx-bf16"
#endif
#include <immintrin.h>

#include "tile_product.h"

namespace {

// Written as assembly: the compiler's own functions take register numbers too, but do not say that they read memory.
struct AmxTiles {
  template <int t>
  void zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(t));
  }
  template <int t>
  void load(const Bf16* p) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(p), "r"(Index{64}), "i"(t) : "memory");
  }
  template <int t>
  void store(float* p) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(p), "r"(Index{64}), "i"(t) : "memory");
  }
  // d += a b
  template <int d, int a, int b>
  void multiply() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(d), "i"(a), "i"(b));
  }
};

// eight tiles of 16 rows of 64 bytes
struct alignas(64) TileConfig {
  unsigned char palette = 1, start = 0, reserved[14] = {};
  unsigned short row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  unsigned char rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

void enter() {
  const TileConfig config;
  asm volatile("ldtilecfg %0" ::"m"(config));
}

void leave() { asm volatile("tilerelease"); }

}  // namespace

namespace lstmx {
constinit const Engine engine_amx = {
    "amx",
    {&multiply_tiles<AmxTiles, 1>, &multiply_tiles<AmxTiles, 2>, &multiply_tiles<AmxTiles, 3>},
    &enter,
    &leave,
    {10.9, 4.3, 1.96},
    16,
};
}  // namespace lstmx
