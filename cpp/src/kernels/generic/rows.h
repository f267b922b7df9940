// Rows of [T,B,K] arrays in the order r = t * B + b, whatever their strides.
#pragma once

namespace {

template <class View>
LSTMX_INLINE auto row_pointer(const View& view, Index B, Index r) {
  return view.data + r / B * view.step + r % B * view.row;
}

// Whether consecutive rows lie at one distance across the steps, and that distance.
template <class View>
LSTMX_INLINE bool is_uniform(const View& view, Index B) {
  return B == 1 || view.step == B * view.row;
}

template <class View>
LSTMX_INLINE Index row_distance(const View& view, Index B) {
  return B == 1 ? view.step : view.row;
}

// [begin, end) in runs of at most `most` rows that keep one distance: body(first, count). Unless `uniform`, a run ends
// with its step.
template <class Body>
LSTMX_INLINE void for_row_runs(Index begin, Index end, Index B, bool uniform, Index most, const Body& body) {
  while (begin < end) {
    Index stop = uniform ? end : (begin / B + 1) * B;
    if (stop > end) stop = end;
    if (stop > begin + most) stop = begin + most;
    body(begin, stop - begin);
    begin = stop;
  }
}

}  // namespace
