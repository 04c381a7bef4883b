/* SPDX-License-Identifier: BSD-2-Clause */
/* Private to the commands of server side includes. */
#ifndef MODULES_HTTP_SSI_COMMANDS_H
#define MODULES_HTTP_SSI_COMMANDS_H

#include "modules/http/ssi.h"

enum { INCLUDE_VIRTUAL, INCLUDE_FILE, INCLUDE_WAIT, INCLUDE_SET, INCLUDE_STUB };

/* Parameters by index, NULL where not given. They are gone with the next call of the parser. */
enum ssi_result ssi_include(struct ssi *s, const struct str *const *params, struct chain *out);
/* Text that refers to block (NULL: it outlives the answer) at the end of out. */
void ssi_put(struct chain *out, struct block *block, struct str s);

#endif
