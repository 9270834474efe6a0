# Libraries, public headers, pkg-config file, CMake package, programs and the licence.

include(CMakePackageConfigHelpers)

set(package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/shoal")

install(TARGETS shoal shoal_static EXPORT shoal-targets)
if(SHOAL_APPS)
    install(TARGETS ${SHOAL_APPS})
endif()
foreach(header IN LISTS SHOAL_PUBLIC_HEADERS)
    get_filename_component(folder "${header}" DIRECTORY)
    install(FILES "${header}" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/shoal/${folder}")
endforeach()
install(FILES "${SHOAL_UMBRELLA}" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/shoal")
install(FILES tools/gdb/shoal.py DESTINATION "${CMAKE_INSTALL_DATADIR}/shoal/gdb")
install(FILES LICENSE DESTINATION "${CMAKE_INSTALL_DOCDIR}")

# Relative, so that an installed tree may move and `cmake --install --prefix` is honoured.
file(RELATIVE_PATH SHOAL_PC_PREFIX "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
string(REGEX REPLACE "/$" "" SHOAL_PC_PREFIX "${SHOAL_PC_PREFIX}")
set(SHOAL_PC_CFLAGS)
if(SHOAL_DEBUG)
    set(SHOAL_PC_CFLAGS " -DSHOAL_DEBUG=1")
endif()
foreach(package shoal shoal-static)
    configure_file(tools/packaging/${package}.pc.in ${package}.pc @ONLY)
    install(FILES "${CMAKE_BINARY_DIR}/${package}.pc"
            DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
endforeach()

configure_package_config_file(tools/packaging/shoal-config.cmake.in shoal-config.cmake
    INSTALL_DESTINATION "${package_dir}")
write_basic_package_version_file(shoal-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES "${CMAKE_BINARY_DIR}/shoal-config.cmake"
              "${CMAKE_BINARY_DIR}/shoal-config-version.cmake"
        DESTINATION "${package_dir}")
install(EXPORT shoal-targets NAMESPACE shoal:: DESTINATION "${package_dir}")
