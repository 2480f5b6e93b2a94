#define _DEFAULT_SOURCE /* madvise */

#include "memory.h"

#include <stdlib.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

enum { CACHE_LINE_BYTES = 64, HUGE_PAGE_BYTES = 1 << 21 };

void *assay_table_memory(size_t bytes) {
    size_t unit = bytes >= HUGE_PAGE_BYTES ? HUGE_PAGE_BYTES : CACHE_LINE_BYTES;
    size_t rounded = (bytes + unit - 1) / unit * unit;
    void *memory = aligned_alloc(unit, rounded > 0 ? rounded : unit);
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    /* Advice: a refusal changes nothing but the speed. */
    if (memory != NULL && unit == HUGE_PAGE_BYTES) (void)madvise(memory, rounded, MADV_HUGEPAGE);
#endif
    return memory;
}
