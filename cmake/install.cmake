# find_package(billfish) and pkg-config for the installed library.
include(CMakePackageConfigHelpers)

install(TARGETS billfish EXPORT billfish-targets
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT development
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT runtime NAMELINK_COMPONENT development)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/billfish DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT development)
if(BILLFISH_BUILD_CLI)
  install(TARGETS billfish_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT tools)
endif()

set(BILLFISH_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/billfish)
install(EXPORT billfish-targets NAMESPACE billfish:: DESTINATION ${BILLFISH_CMAKE_DIR} COMPONENT development)
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/billfish-config.cmake.in ${PROJECT_BINARY_DIR}/billfish-config.cmake
                              INSTALL_DESTINATION ${BILLFISH_CMAKE_DIR})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/billfish-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/billfish-config.cmake ${PROJECT_BINARY_DIR}/billfish-config-version.cmake
        DESTINATION ${BILLFISH_CMAKE_DIR} COMPONENT development)

file(RELATIVE_PATH BILLFISH_PC_TO_PREFIX /p/${CMAKE_INSTALL_LIBDIR}/pkgconfig /p)
configure_file(${PROJECT_SOURCE_DIR}/cmake/billfish.pc.in ${PROJECT_BINARY_DIR}/billfish.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/billfish.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT development)
