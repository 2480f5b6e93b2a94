/* Memory for tables that are read at random: lines of the cache are not split, and large tables are
 * asked for in huge pages, where they exist, because otherwise each look-up misses the page tables too. */
#ifndef ASSAY_MEMORY_H
#define ASSAY_MEMORY_H

#include <stddef.h>

/* NULL when there is no memory. Not cleared; given back with free(). */
void *assay_table_memory(size_t bytes);

#endif
