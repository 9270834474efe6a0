# How the tests of this tree are built and registered; included by tests/CMakeLists.txt.

set(SHOAL_TEST_BACKENDS io_uring epoll)
if(SHOAL_SANITIZE MATCHES "thread") # TSan does not model io_uring
    set(SHOAL_TEST_BACKENDS epoll)
endif()
set(SHOAL_TEST_ENVIRONMENT
    "SHOAL_BIN_DIR=${CMAKE_BINARY_DIR}/bin"
    "SHOAL_SANITIZE=${SHOAL_SANITIZE}"
    "UBSAN_OPTIONS=print_stacktrace=1"
    "TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1"
    "PYTHONDONTWRITEBYTECODE=1")

# Debian's, which has python3-pytest; the one that PATH names may not.
set(SHOAL_PYTHON /usr/bin/python3)

# shoal_add_test(<name> <label> <timeout in s> <environment> <command>...)
function(shoal_add_test name label timeout environment)
    add_test(NAME "${name}" COMMAND ${ARGN} WORKING_DIRECTORY "${CMAKE_SOURCE_DIR}")
    set_tests_properties("${name}" PROPERTIES
        LABELS ${label}
        TIMEOUT ${timeout}
        SKIP_RETURN_CODE 77
        ENVIRONMENT "${SHOAL_TEST_ENVIRONMENT};${environment}")
endfunction()

# A program that sees the private headers and links the whole library statically.
function(shoal_add_test_program name)
    add_executable(${name} ${ARGN})
    set_target_properties(${name} PROPERTIES
        RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/tests")
    target_include_directories(${name} PRIVATE "${SHOAL_INCLUDE_DIR}" "${CMAKE_SOURCE_DIR}/tests")
    target_compile_definitions(${name} PRIVATE SHOAL_VERSION="${PROJECT_VERSION}")
    target_link_libraries(${name} PRIVATE shoal_flags shoal_static)
endfunction()

# Sources that several such programs share, compiled once: $<TARGET_OBJECTS:name>.
function(shoal_add_test_objects name)
    add_library(${name} OBJECT ${ARGN})
    target_include_directories(${name} PRIVATE "${SHOAL_INCLUDE_DIR}" "${CMAKE_SOURCE_DIR}/tests")
    target_compile_definitions(${name} PRIVATE SHOAL_VERSION="${PROJECT_VERSION}")
    target_link_libraries(${name} PRIVATE shoal_flags)
endfunction()
