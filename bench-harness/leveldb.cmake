# For the build script of the LevelDB bindings (crate `leveldb-sys`), which lets nobody pass options to cmake: LevelDB's
# own check takes GCC for a compiler that knows clang's -Wthread-safety, and the build fails. Used as
# CMAKE_TOOLCHAIN_FILE; changes nothing else.
set(HAVE_CLANG_THREAD_SAFETY OFF CACHE BOOL "GCC has no -Wthread-safety" FORCE)
