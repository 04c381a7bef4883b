/* SPDX-License-Identifier: BSD-2-Clause */
/* What the log says of a request behind a message. */
#ifndef CORE_HTTP_REQ_LOG_H
#define CORE_HTTP_REQ_LOG_H

#include "core/base/log.h"

/*
 * logger.describe of a request (log->data is the struct req): ", client: …, server: …, request: …,
 * subrequest: …, upstream: …, host: …, referrer: …", as far as they are known. At most size bytes at buf; returns how
 * many.
 */
size_t req_describe(const struct logger *log, char *buf, size_t size);

#endif
