// The order in which the rows of a sequence are computed, made from their lengths; owns what a Schedule points to.
#pragma once
#include <cstdint>
#include <vector>

#include "kernels.h"

namespace lstmx {

class Rows {
 public:
  // `lengths` [B] or null: T each; `resets` [T,B] or null, with its strides.
  Rows(Index T, Index B, const std::int64_t* lengths, const unsigned char* resets, Index reset_step, Index reset_row);

  Index count() const { return count_; }     // of all steps together
  Schedule schedule() const;                 // valid as long as this object
  Rows piece(Index begin, Index end) const;  // the steps [begin, end) as a sequence of their own

 private:
  Rows(Index T, Index B) : T_(T), B_(B) {}
  void count_alive();

  Index T_, B_, count_ = 0;
  std::vector<Index> order_, length_, alive_, first_;
  std::vector<unsigned char> resets_;  // a copy, dense [T,B]
};

}  // namespace lstmx
