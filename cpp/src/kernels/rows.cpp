#include "rows.h"

#include <algorithm>
#include <numeric>

namespace lstmx {

Rows::Rows(Index T, Index B, const std::int64_t* lengths, const unsigned char* resets, Index reset_step,
           Index reset_row)
    : T_(T), B_(B), order_(static_cast<std::size_t>(B)), length_(static_cast<std::size_t>(B), T) {
  std::iota(order_.begin(), order_.end(), Index{0});
  if (lengths != nullptr) {
    std::stable_sort(order_.begin(), order_.end(), [&](Index a, Index b) { return lengths[a] > lengths[b]; });
    for (std::size_t p = 0; p < order_.size(); ++p) length_[p] = lengths[order_[p]];
  }
  if (resets != nullptr) {
    resets_.resize(static_cast<std::size_t>(T * B));
    for (Index t = 0; t < T; ++t) {
      for (Index b = 0; b < B; ++b)
        resets_[static_cast<std::size_t>(t * B + b)] = resets[t * reset_step + b * reset_row];
    }
  }
  count_alive();
}

// alive_, first_ and count_ from T_ and length_
void Rows::count_alive() {
  alive_.resize(static_cast<std::size_t>(T_) + 1);
  first_.resize(static_cast<std::size_t>(T_) + 1);
  Index alive = B_;
  count_ = 0;
  for (Index t = 0; t <= T_; ++t) {
    while (alive > 0 && length_[static_cast<std::size_t>(alive - 1)] <= t) --alive;
    alive_[static_cast<std::size_t>(t)] = alive;
    first_[static_cast<std::size_t>(t)] = count_;
    count_ += alive;
  }
}

Schedule Rows::schedule() const {
  return {
      order_.data(), length_.data(), alive_.data(), first_.data(), resets_.empty() ? nullptr : resets_.data(), B_, 1};
}

Rows Rows::piece(Index begin, Index end) const {
  Rows piece(end - begin, B_);
  piece.order_ = order_;
  for (const Index length : length_) piece.length_.push_back(std::clamp<Index>(length - begin, 0, piece.T_));
  if (!resets_.empty()) piece.resets_.assign(resets_.begin() + begin * B_, resets_.begin() + end * B_);
  piece.count_alive();
  return piece;
}

}  // namespace lstmx
