/* SPDX-License-Identifier: BSD-2-Clause */
/* What happens to a status that nobody has answered yet: error_page, else the built-in page. */
#ifndef CORE_HTTP_ERROR_PAGE_H
#define CORE_HTTP_ERROR_PAGE_H

#include "core/http/req.h"

/* For r->status_wanted: V_RESTART to an error page, V_ANSWER with a built-in page, V_ABORT (444). */
enum verdict error_page_handle(struct req *r);

/* What error_page in the request's location names for a status; NULL: the built-in page. */
const struct error_page *error_page_find(const struct req *r, unsigned status);

#endif
