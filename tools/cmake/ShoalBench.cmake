# bin/shoal-bench-micro, which `tools/bench micro` runs: it sees what a user's program sees, the
# public headers and the shared library. Not installed.

file(GLOB micro_sources CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/tools/benchlib/micro/*.c")
add_executable(shoal-bench-micro ${micro_sources})
target_link_libraries(shoal-bench-micro PRIVATE shoal_flags shoal)
