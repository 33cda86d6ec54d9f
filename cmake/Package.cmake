# The Debian package: `cmake --build --preset release --target package`. Its control files are in etc/debian.

# The programs know each other by their installed paths.
if(NOT CMAKE_INSTALL_PREFIX STREQUAL "/usr")
  message(STATUS "no target package: a Debian package is installed below /usr, and this build below ${CMAKE_INSTALL_PREFIX}")
  return()
endif()

set(debian ${PROJECT_SOURCE_DIR}/etc/debian)
file(STRINGS ${debian}/changelog newest LIMIT_COUNT 1)
if(NOT newest MATCHES "^ecfs \\(([0-9.]+)-([0-9]+)\\) " OR NOT CMAKE_MATCH_1 STREQUAL PROJECT_VERSION)
  message(FATAL_ERROR "etc/debian/changelog does not begin with version ${PROJECT_VERSION}: ${newest}")
endif()
set(CPACK_DEBIAN_PACKAGE_RELEASE ${CMAKE_MATCH_2})
file(STRINGS ${debian}/changelog signature REGEX "^ -- .*>  " LIMIT_COUNT 1)
string(REGEX REPLACE "^ -- (.*>)  .*" "\\1" CPACK_DEBIAN_PACKAGE_MAINTAINER "${signature}")
file(READ ${debian}/description CPACK_DEBIAN_PACKAGE_DESCRIPTION)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${debian}/changelog ${debian}/description)

set(CPACK_GENERATOR DEB)
set(CPACK_VERBATIM_VARIABLES ON)
set(CPACK_PACKAGE_NAME ecfs)
string(SUBSTRING "${PROJECT_DESCRIPTION}" 0 1 first)
string(SUBSTRING "${PROJECT_DESCRIPTION}" 1 -1 rest)
string(TOLOWER "${first}" first)
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "${first}${rest}")
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION utils)
set(CPACK_DEBIAN_PACKAGE_PRIORITY optional)
set(CPACK_DEBIAN_COMPRESSION_TYPE none)  # size.cmake compresses

# Libraries are found in the programs; these are programs that are run, and their files: fusermount3, pam-auth-update, the
# dictionary that passwords are tried on; and the library for the kernel's TPM, which is loaded by name.
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_DEPENDS "fuse3, libpam-runtime (>= 1.0.1-6), cracklib-runtime, libtss2-tcti-device0 (>= 3.2)")
if(ECFS_BOTAN AND botan_FOUND)  # loaded where it is there; the package has its number
  string(REGEX REPLACE "^libbotan-2\\.so\\.([0-9]+)$" "libbotan-2-\\1" CPACK_DEBIAN_PACKAGE_SUGGESTS "${botan_soname}")
endif()

set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA ${debian}/conffiles ${debian}/postinst ${debian}/prerm ${debian}/postrm)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_PRE_BUILD_SCRIPTS ${debian}/finish.cmake)
set(CPACK_POST_BUILD_SCRIPTS ${debian}/size.cmake)
set(CPACK_STRIP_FILES ON)
set(CPACK_SET_DESTDIR ON)  # /etc/ecfs is not below the prefix
include(CPack)
