# bin/shoal-bench-micro, which `tools/bench micro` runs: it sees what a user's program sees, the
# public headers and the shared library. Not installed.

file(GLOB micro_sources CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/tools/benchlib/micro/*.c")
add_executable(shoal-bench-micro ${micro_sources})
target_link_libraries(shoal-bench-micro PRIVATE shoal_flags shoal)

# bin/shoal-bench-scaling and bin/shoal-bench-mesh, for `tools/bench scaling`. The first is a user's
# program again; the second times the private steps of a ring, and so sees the private headers.
file(GLOB scaling_sources CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/tools/benchlib/scaling/*.c")
set(mesh_sources ${scaling_sources})
list(FILTER scaling_sources EXCLUDE REGEX "/mesh[^/]*\\.c$")
list(FILTER mesh_sources INCLUDE REGEX "/mesh[^/]*\\.c$")
add_executable(shoal-bench-scaling ${scaling_sources})
target_link_libraries(shoal-bench-scaling PRIVATE shoal_flags shoal)
add_executable(shoal-bench-mesh ${mesh_sources})
target_include_directories(shoal-bench-mesh PRIVATE "${SHOAL_INCLUDE_DIR}")
target_link_libraries(shoal-bench-mesh PRIVATE shoal_flags shoal_static)

# bin/shoal-bench-smp, for `tools/bench smp`: a user's program too; its limits have rings of their own.
file(GLOB smp_bench_sources CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/tools/benchlib/smp/*.c")
add_executable(shoal-bench-smp ${smp_bench_sources})
target_link_libraries(shoal-bench-smp PRIVATE shoal_flags shoal PkgConfig::URING)
