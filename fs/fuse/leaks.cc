// For LeakSanitizer: libfuse's copy of the mountpoint is freed by fuse_session_unmount, and to unmount is the
// supervisor's part.
// NOLINTNEXTLINE(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp): the name that the sanitizer looks for
extern "C" [[gnu::visibility("default"), gnu::used]] const char* __lsan_default_suppressions() {
  return "leak:fuse_session_mount\n";
}
