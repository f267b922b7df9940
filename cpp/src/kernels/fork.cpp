// A flag that the system sets in a forked child (POSIX pthread_atfork); registered when the library is loaded.
#include "fork.h"

#include <pthread.h>

namespace lstmx {
namespace {

bool forked = false;

const int registered = pthread_atfork(nullptr, nullptr, [] { forked = true; });

}  // namespace

bool is_forked_child() {
  (void)registered;
  return forked;
}

}  // namespace lstmx
