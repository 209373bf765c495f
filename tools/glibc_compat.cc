// The six symbols that two of TFX's wheels need and that systems older than glibc 2.39 lack.
// glibc_compat.py compiles it, with SOURCE_DIGEST.

#include <cxxabi.h>
#include <exception>
#include <ios>

// glibc 2.38: C23's strtol and its kin. They also read the prefix 0b, of which nothing makes use.
// The old functions are bound by name, because a newer <cstdlib> redirects them to these very ones.
extern "C" {
long old_strtol(const char*, char**, int) __asm__("strtol");
unsigned long old_strtoul(const char*, char**, int) __asm__("strtoul");
long long old_strtoll(const char*, char**, int) __asm__("strtoll");
unsigned long long old_strtoull(const char*, char**, int) __asm__("strtoull");

long __isoc23_strtol(const char* text, char** end, int base) {
  return old_strtol(text, end, base);
}
unsigned long __isoc23_strtoul(const char* text, char** end, int base) {
  return old_strtoul(text, end, base);
}
long long __isoc23_strtoll(const char* text, char** end, int base) {
  return old_strtoll(text, end, base);
}
unsigned long long __isoc23_strtoull(const char* text, char** end, int base) {
  return old_strtoull(text, end, base);
}
}

// GCC 13's libstdc++ (GLIBCXX_3.4.32): std::ios_base_library_init(). A program refers to it to be
// sure that the library sets up the standard streams. Here this object does, while it lives.
static std::ios_base::Init standard_streams;
extern "C" void _ZSt21ios_base_library_initv() {}

// GCC 14's libstdc++ (CXXABI_1.3.15): called when an exception leaves a noexcept function.
extern "C" void __cxa_call_terminate(void* exception) {
  // Caught first, so that the message of std::terminate names it.
  if (exception) __cxxabiv1::__cxa_begin_catch(exception);
  std::terminate();
}

// What this library was compiled from, so that glibc_compat.py can tell whether it is out of date.
extern "C" {
extern const char gpt2_tfx_glibc_compat_source[];
const char gpt2_tfx_glibc_compat_source[] = SOURCE_DIGEST;
}
