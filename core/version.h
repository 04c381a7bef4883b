/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The one place that says which version this is. Any file may include it; configure and the
 * packaging read it with sed, so a macro and its string stay on one line.
 */
#ifndef CORE_VERSION_H
#define CORE_VERSION_H

/* Our own version, as sent in Server and printed by -v. */
#define PROXYD_VERSION "0.1.0"

/* The nginx release whose configuration language is spoken: tools ask -v for it. */
#define PROXYD_NGINX_LEVEL "1.31.4"

#endif
