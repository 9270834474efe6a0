# Two include trees of symlinks, so that `#include "shoal/runtime/x.h"` means the source tree:
#   <build>/include         whole layers, for the library and its tests
#   <build>/public/include  what gets installed, for the apps: a private header is not there
# SHOAL_PUBLIC_HEADERS lists the public ones, relative to the source tree, without the umbrella.

set(SHOAL_LAYERS runtime smp net)
set(SHOAL_INCLUDE_DIR "${CMAKE_BINARY_DIR}/include")
set(SHOAL_PUBLIC_INCLUDE_DIR "${CMAKE_BINARY_DIR}/public/include")
set(SHOAL_UMBRELLA net/shoal.h)

file(MAKE_DIRECTORY "${SHOAL_INCLUDE_DIR}/shoal")
set(globs)
foreach(layer IN LISTS SHOAL_LAYERS)
    file(CREATE_LINK "${CMAKE_SOURCE_DIR}/${layer}" "${SHOAL_INCLUDE_DIR}/shoal/${layer}" SYMBOLIC)
    list(APPEND globs "${CMAKE_SOURCE_DIR}/${layer}/*.h")
endforeach()
file(CREATE_LINK "${CMAKE_SOURCE_DIR}/${SHOAL_UMBRELLA}" "${SHOAL_INCLUDE_DIR}/shoal/shoal.h"
     SYMBOLIC)

file(GLOB_RECURSE SHOAL_PUBLIC_HEADERS CONFIGURE_DEPENDS RELATIVE "${CMAKE_SOURCE_DIR}" ${globs})
list(FILTER SHOAL_PUBLIC_HEADERS EXCLUDE REGEX "_impl\\.h$|^runtime/(banned|uring_compat)\\.h$")
list(REMOVE_ITEM SHOAL_PUBLIC_HEADERS ${SHOAL_UMBRELLA})

file(REMOVE_RECURSE "${SHOAL_PUBLIC_INCLUDE_DIR}")
foreach(header IN LISTS SHOAL_PUBLIC_HEADERS)
    set(link "${SHOAL_PUBLIC_INCLUDE_DIR}/shoal/${header}")
    get_filename_component(folder "${link}" DIRECTORY)
    file(MAKE_DIRECTORY "${folder}")
    file(CREATE_LINK "${CMAKE_SOURCE_DIR}/${header}" "${link}" SYMBOLIC)
endforeach()
file(MAKE_DIRECTORY "${SHOAL_PUBLIC_INCLUDE_DIR}/shoal")
file(CREATE_LINK "${CMAKE_SOURCE_DIR}/${SHOAL_UMBRELLA}" "${SHOAL_PUBLIC_INCLUDE_DIR}/shoal/shoal.h"
     SYMBOLIC)
