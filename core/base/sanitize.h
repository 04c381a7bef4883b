/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Telling AddressSanitizer about memory that we recycle ourselves: what lies in a free list is
 * poisoned, so that a use after its end is seen as if it had been freed. Nothing, and free of
 * cost, in builds without the sanitizer. Used by arena and chain only.
 */
#ifndef CORE_BASE_SANITIZE_H
#define CORE_BASE_SANITIZE_H

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif

#ifdef WITH_ASAN
#include <sanitizer/asan_interface.h>
#define MEM_POISON(ptr, len) __asan_poison_memory_region((ptr), (len))
#define MEM_UNPOISON(ptr, len) __asan_unpoison_memory_region((ptr), (len))
#else
#define MEM_POISON(ptr, len) ((void) (ptr), (void) (len))
#define MEM_UNPOISON(ptr, len) ((void) (ptr), (void) (len))
#endif

#endif
