# How everything in this tree is compiled: the target shoal_flags, linked PRIVATE by all others.

set(CMAKE_C_STANDARD 17)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/lib")
set(CMAKE_ARCHIVE_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/lib")
set(CMAKE_INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR}")

add_library(shoal_flags INTERFACE)
target_compile_definitions(shoal_flags INTERFACE _GNU_SOURCE=) # empty, as `#define _GNU_SOURCE` in a source
target_compile_options(shoal_flags INTERFACE
    -fno-omit-frame-pointer
    -fstack-clash-protection
    "-fmacro-prefix-map=${CMAKE_BINARY_DIR}/include/shoal/="
    "-fmacro-prefix-map=${CMAKE_SOURCE_DIR}/="
    $<$<COMPILE_LANGUAGE:C>:-Wall>
    $<$<COMPILE_LANGUAGE:C>:-Wextra>
    $<$<COMPILE_LANGUAGE:C>:-Wshadow>
    $<$<COMPILE_LANGUAGE:C>:-Wstrict-prototypes>
    $<$<COMPILE_LANGUAGE:C>:-Wmissing-prototypes>
    $<$<COMPILE_LANGUAGE:C>:-Wvla>
    $<$<COMPILE_LANGUAGE:C>:-Wconversion>
    $<$<COMPILE_LANGUAGE:C>:-Wno-sign-conversion>)
target_link_options(shoal_flags INTERFACE -Wl,--as-needed)

# There gcc counts on a guard of 64 KiB, and would not probe a frame that is smaller than that.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)" AND CMAKE_C_COMPILER_ID STREQUAL "GNU")
    target_compile_options(shoal_flags INTERFACE
        $<$<COMPILE_LANGUAGE:C>:--param=stack-clash-protection-guard-size=12>)
endif()

if(SHOAL_SANITIZE)
    target_compile_options(shoal_flags INTERFACE
        -fsanitize=${SHOAL_SANITIZE} -fno-sanitize-recover=all)
    target_link_options(shoal_flags INTERFACE -fsanitize=${SHOAL_SANITIZE})
endif()
if(SHOAL_COVERAGE)
    target_compile_options(shoal_flags INTERFACE --coverage -fprofile-update=atomic)
    target_link_options(shoal_flags INTERFACE --coverage)
endif()
if(SHOAL_FUZZ)
    target_compile_options(shoal_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
if(SHOAL_LTO)
    set(CMAKE_INTERPROCEDURAL_OPTIMIZATION ON)
endif()
