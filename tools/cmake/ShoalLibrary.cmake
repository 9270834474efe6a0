# libshoal, compiled once (PIC) and linked twice: libshoal.so.0 and libshoal.a.

find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
pkg_check_modules(URING REQUIRED IMPORTED_TARGET liburing>=2.3)
pkg_check_modules(HWLOC REQUIRED IMPORTED_TARGET hwloc>=2.9)

set(globs)
foreach(layer IN LISTS SHOAL_LAYERS)
    list(APPEND globs "${CMAKE_SOURCE_DIR}/${layer}/*.c" "${CMAKE_SOURCE_DIR}/${layer}/*.S")
endforeach()
file(GLOB_RECURSE SHOAL_SOURCES CONFIGURE_DEPENDS ${globs})

add_library(shoal_objects OBJECT ${SHOAL_SOURCES})
set_target_properties(shoal_objects PROPERTIES
    POSITION_INDEPENDENT_CODE ON
    C_VISIBILITY_PRESET hidden)
target_include_directories(shoal_objects PRIVATE "${SHOAL_INCLUDE_DIR}")
target_compile_definitions(shoal_objects PRIVATE SHOAL_VERSION="${PROJECT_VERSION}")
target_compile_options(shoal_objects PRIVATE
    $<$<COMPILE_LANGUAGE:C>:-fno-semantic-interposition -fno-plt>
    "$<$<COMPILE_LANGUAGE:C>:SHELL:-include ${CMAKE_SOURCE_DIR}/runtime/banned.h>")
target_link_libraries(shoal_objects PRIVATE shoal_flags PkgConfig::URING PkgConfig::HWLOC)

# The symbols of jemalloc are weak in the library: a weak reference alone would let --as-needed
# drop it, so whoever links a program says it as one linker word.
set(SHOAL_JEMALLOC_LINK)
if(SHOAL_JEMALLOC)
    set(SHOAL_JEMALLOC_LINK "-Wl,--push-state,--no-as-needed,-ljemalloc,--pop-state")
endif()

add_library(shoal SHARED)
add_library(shoal_static STATIC)
add_library(shoal::shoal ALIAS shoal)
add_library(shoal::static ALIAS shoal_static)
set_target_properties(shoal PROPERTIES
    VERSION ${PROJECT_VERSION}
    SOVERSION ${PROJECT_VERSION_MAJOR}
    LINKER_LANGUAGE C)
set_target_properties(shoal_static PROPERTIES
    OUTPUT_NAME shoal
    EXPORT_NAME static
    LINKER_LANGUAGE C)

foreach(library shoal shoal_static)
    target_sources(${library} PRIVATE $<TARGET_OBJECTS:shoal_objects>)
    target_link_libraries(${library} INTERFACE ${SHOAL_JEMALLOC_LINK})
    if(SHOAL_DEBUG)
        target_compile_definitions(${library} PUBLIC SHOAL_DEBUG=1)
    endif()
endforeach()
if(SHOAL_DEBUG)
    target_compile_definitions(shoal_objects PRIVATE SHOAL_DEBUG=1)
endif()

set(SHOAL_SYSTEM_LIBS PkgConfig::URING PkgConfig::HWLOC Threads::Threads ${CMAKE_DL_LIBS})
target_link_libraries(shoal PRIVATE shoal_flags ${SHOAL_SYSTEM_LIBS})
target_include_directories(shoal INTERFACE
    $<BUILD_INTERFACE:${SHOAL_PUBLIC_INCLUDE_DIR}>
    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_link_libraries(shoal_static
    INTERFACE $<BUILD_INTERFACE:PkgConfig::URING> $<BUILD_INTERFACE:PkgConfig::HWLOC>
              $<INSTALL_INTERFACE:uring> $<INSTALL_INTERFACE:hwloc>
              Threads::Threads ${CMAKE_DL_LIBS})
target_include_directories(shoal_static INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)

# A sanitizer of clang leaves its symbols to the program.
if(NOT (CMAKE_C_COMPILER_ID MATCHES "Clang" AND (SHOAL_SANITIZE OR SHOAL_FUZZ)))
    target_link_options(shoal PRIVATE -Wl,-z,defs -Wl,-Bsymbolic-functions)
endif()
