# Each folder of apps/ becomes bin/shoal-<folder>.

file(GLOB app_sources CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/apps/*/*.c")
set(SHOAL_APPS)
foreach(source IN LISTS app_sources)
    get_filename_component(folder "${source}" DIRECTORY)
    get_filename_component(name "${folder}" NAME)
    if(NOT TARGET shoal-${name})
        add_executable(shoal-${name})
        target_link_libraries(shoal-${name} PRIVATE shoal_flags shoal)
        list(APPEND SHOAL_APPS shoal-${name})
    endif()
    target_sources(shoal-${name} PRIVATE "${source}")
endforeach()
