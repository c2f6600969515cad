/* keep_coalesce - keepsock: UDP in batches, segmented and coalesced */
#define COALESCING true
#include "keep_batch.c"
