# Run by CPack on the files to be packed, before it packs them: what a Debian package has and an installation has not.
set(root "${CPACK_TEMPORARY_DIRECTORY}")
set(doc "${root}/usr/share/doc/ecfs")
set(here "${CMAKE_CURRENT_LIST_DIR}")

# Without it CPack leaves the dependencies on libraries out, and says nothing.
find_program(SHLIBDEPS dpkg-shlibdeps)
if(NOT SHLIBDEPS)
  message(FATAL_ERROR "dpkg-shlibdeps is missing. Install it:\n  sudo setup/install-packages package")
endif()

set(readable OWNER_READ OWNER_WRITE GROUP_READ WORLD_READ)
file(MAKE_DIRECTORY "${doc}" "${root}/usr/share/lintian/overrides")
configure_file("${here}/copyright" "${doc}/copyright" COPYONLY FILE_PERMISSIONS ${readable})
configure_file("${here}/changelog" "${doc}/changelog.Debian" COPYONLY FILE_PERMISSIONS ${readable})
configure_file("${here}/../../CHANGELOG.md" "${doc}/changelog" COPYONLY FILE_PERMISSIONS ${readable})
configure_file("${here}/lintian-overrides" "${root}/usr/share/lintian/overrides/ecfs" COPYONLY FILE_PERMISSIONS ${readable})

file(GLOB_RECURSE compressed "${root}/usr/share/man/*")
list(APPEND compressed "${doc}/changelog.Debian" "${doc}/changelog")
foreach(file IN LISTS compressed)
  execute_process(COMMAND gzip -9n "${file}" COMMAND_ERROR_IS_FATAL ANY)
endforeach()
file(CREATE_LINK mount.ecfs.8.gz "${root}/usr/share/man/man8/mount.fuse.ecfs.8.gz" SYMBOLIC)

# Directories everybody can enter, whatever the umask of the one who packs.
file(GLOB_RECURSE paths LIST_DIRECTORIES true "${root}/*")
foreach(path IN LISTS paths)
  if(IS_DIRECTORY "${path}")
    file(CHMOD "${path}" PERMISSIONS ${readable} OWNER_EXECUTE GROUP_EXECUTE WORLD_EXECUTE)
  endif()
endforeach()
