// The extension module lstmx._core: views, invariants and the interpreter lock; no arithmetic.
#include "../kernels/dispatch.h"
#include "../kernels/products.h"
#include "../kernels/threads.h"
#include "arrays.h"

PYBIND11_MODULE(_core, m) {
  using namespace lstmx::bindings;
  m.doc() = "The compiled core of lstmx.";
  bind_runtime(m);
  bind_recurrent(m);
  bind_linear(m);
  bind_optimizers(m);
  bind_tensors(m);
  // wrong environment variables are told at import, not in the middle of a run
  lstmx::active_target();
  lstmx::default_precision();
  lstmx::default_threads();
}
