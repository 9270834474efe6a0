# What a preset or a user may choose.

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
    set(CMAKE_BUILD_TYPE Release CACHE STRING "Debug or Release" FORCE)
endif()

set(SHOAL_SANITIZE "" CACHE STRING "What -fsanitize= gets: address,undefined or thread")
option(SHOAL_DEBUG "Debug checks (SHOAL_DCHECK, ownership asserts, slab quarantine)" OFF)
option(SHOAL_COVERAGE "Instrument for gcov" OFF)
option(SHOAL_LTO "Link-time optimisation" OFF)
option(SHOAL_FUZZ "Build tests/fuzz as libFuzzer programs (clang only)" OFF)
option(SHOAL_TESTS "Build the tests" ${PROJECT_IS_TOP_LEVEL})

# The sanitizers bring an allocator of their own.
if(SHOAL_SANITIZE OR SHOAL_FUZZ)
    set(SHOAL_JEMALLOC OFF)
else()
    set(SHOAL_JEMALLOC ON)
endif()

if(SHOAL_FUZZ AND NOT CMAKE_C_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "SHOAL_FUZZ needs clang: cmake --preset fuzz")
endif()
