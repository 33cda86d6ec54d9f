# Compiler and linker flags, on one target that everything of ours links.

add_library(ecfs_flags INTERFACE)
add_library(ecfs::flags ALIAS ecfs_flags)
target_include_directories(ecfs_flags INTERFACE ${PROJECT_SOURCE_DIR})
target_compile_options(ecfs_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wnon-virtual-dtor -Wold-style-cast -Wimplicit-fallthrough
  -fstack-protector-strong -fstack-clash-protection $<$<CXX_COMPILER_ID:GNU>:-ftrivial-auto-var-init=zero>)
target_compile_definitions(ecfs_flags INTERFACE _FILE_OFFSET_BITS=64 _GNU_SOURCE)
target_link_options(ecfs_flags INTERFACE LINKER:-z,relro,-z,now,-z,noexecstack LINKER:--as-needed)
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  target_compile_options(ecfs_flags INTERFACE -Wno-missing-field-initializers)
  find_program(LLD ld.lld)
  if(LLD)  # faster than GNU's with what the sanitizers make of a program
    target_link_options(ecfs_flags INTERFACE -fuse-ld=lld)
  endif()
endif()

if(ECFS_SANITIZE)
  target_compile_options(ecfs_flags INTERFACE -fsanitize=${ECFS_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  if(ECFS_SANITIZE MATCHES "undefined")
    # These three take long to compile, and AddressSanitizer finds what they find.
    target_compile_options(ecfs_flags INTERFACE -fno-sanitize=vptr,object-size,null)
  endif()
  target_link_options(ecfs_flags INTERFACE -fsanitize=${ECFS_SANITIZE})
  target_compile_definitions(ecfs_flags INTERFACE ECFS_SANITIZED)
else()
  target_compile_options(ecfs_flags INTERFACE $<$<NOT:$<CONFIG:Debug>>:-U_FORTIFY_SOURCE$<SEMICOLON>-D_FORTIFY_SOURCE=2>)
endif()

if(ECFS_FUZZ)
  # So that libFuzzer sees which code of the libraries that the fuzzers link an input reaches.
  target_compile_options(ecfs_flags INTERFACE
    $<$<IN_LIST:$<TARGET_PROPERTY:NAME>,ecfs_base$<SEMICOLON>ecfs_wrap$<SEMICOLON>ecfs_fs$<SEMICOLON>ecfs_swap_plan>:-fsanitize=fuzzer-no-link>)
  target_link_options(ecfs_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
