// Tells whether this process was forked from one that had loaded the library.
#pragma once

namespace lstmx {

bool is_forked_child();

}  // namespace lstmx
