/* tcmoa.h compiles on its own as C17, and its structs have the sizes on which compiled callers rely. */
#include "tcmoa.h"

_Static_assert(sizeof(tcmoa_frame) == 24 + 3 * sizeof(void *) + 3 * sizeof(size_t) + sizeof(void *) + 32,
               "no padding in tcmoa_frame");
_Static_assert(sizeof(tcmoa_stats) == 5 * 8 + 32, "no padding in tcmoa_stats");
_Static_assert(sizeof(tcmoa_options) == 8 + 8 + 8 + 16 + 8 + 128, "no padding in tcmoa_options");
_Static_assert(TCMOA_OK == 0 && TCMOA_ERROR_TIMEOUT < 0, "errors are negative");

int tcmoa_header_alone(void);
int tcmoa_header_alone(void) { return tcmoa_status_name(TCMOA_OK) != 0; }
