// For LeakSanitizer: libfuse's copy of the mountpoint is freed by fuse_session_unmount, and to unmount is the
// supervisor's part. The names are those that the sanitizer looks for.
// NOLINTBEGIN(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp)
extern "C" [[gnu::visibility("default"), gnu::used]] const char* __lsan_default_suppressions() {
  return "leak:fuse_session_mount\n";
}
extern "C" [[gnu::visibility("default"), gnu::used]] const char* __lsan_default_options() {
  return "print_suppressions=0";
}
// NOLINTEND(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp)
