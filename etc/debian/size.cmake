# Run by CPack on the package that it has made: CPack counts the program once for every link to it.
foreach(package IN LISTS CPACK_PACKAGE_FILES)
  set(tree "${package}.tree")
  execute_process(COMMAND dpkg-deb --raw-extract "${package}" "${tree}" COMMAND_ERROR_IS_FATAL ANY)
  execute_process(COMMAND du --summarize --apparent-size --block-size=1K --exclude=DEBIAN "${tree}"
    OUTPUT_VARIABLE used COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCH "^[0-9]+" used "${used}")
  file(READ "${tree}/DEBIAN/control" control)
  string(REGEX REPLACE "(\nInstalled-Size: )[0-9]+" "\\1${used}" control "${control}")
  file(WRITE "${tree}/DEBIAN/control" "${control}")
  execute_process(COMMAND dpkg-deb --root-owner-group -Zxz --build "${tree}" "${package}" OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)
  file(REMOVE_RECURSE "${tree}")
endforeach()
