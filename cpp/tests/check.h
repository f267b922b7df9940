// CHECK(condition): prints the condition and where it stands, and ends the program with 1.
#pragma once
#include <cstdio>
#include <cstdlib>
#include <cstring>

#define CHECK(condition)                                                           \
  do {                                                                             \
    if (!(condition)) {                                                            \
      std::fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
      std::exit(1);                                                                \
    }                                                                              \
  } while (false)

// Whether `body` throws an Error with `part` in its message.
template <class Error, class Body>
bool throws(const Body& body, const char* part) {
  try {
    body();
  } catch (const Error& error) {
    return std::strstr(error.what(), part) != nullptr;
  }
  return false;
}
