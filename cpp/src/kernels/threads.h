// The default number of threads: LSTMX_NUM_THREADS, else the processors this process may use; 1 without OpenMP.
#pragma once

namespace lstmx {

bool has_openmp();
int default_threads();            // throws std::invalid_argument on a wrong LSTMX_NUM_THREADS
void set_default_threads(int n);  // throws std::invalid_argument below 1

}  // namespace lstmx
