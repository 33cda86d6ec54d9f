// For LeakSanitizer: libfuse's copy of the mountpoint is freed by fuse_session_unmount, and to unmount is the
// supervisor's part.
extern "C" const char* __lsan_default_suppressions();   // NOLINT(bugprone-reserved-identifier,cert-dcl*)
extern "C" const char* __lsan_default_suppressions() {  // NOLINT(bugprone-reserved-identifier,cert-dcl*)
  return "leak:fuse_session_mount\n";
}
