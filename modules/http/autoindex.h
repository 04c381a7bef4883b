/* SPDX-License-Identifier: BSD-2-Clause */
/* The text of a directory listing, made without a request: for autoindex.c. */
#ifndef MODULES_HTTP_AUTOINDEX_H
#define MODULES_HTTP_AUTOINDEX_H

#include <time.h>

#include "core/base/arena.h"
#include "core/base/chain.h"

enum autoindex_format { AUTOINDEX_HTML, AUTOINDEX_XML, AUTOINDEX_JSON, AUTOINDEX_JSONP };
enum autoindex_kind { ENTRY_DIRECTORY, ENTRY_FILE, ENTRY_OTHER };

struct autoindex_entry {
    struct str name; /* NUL-terminated */
    enum autoindex_kind kind;
    uint64_t size;
    time_t mtime;
};

struct autoindex_list {
    struct arena *arena; /* of entries; text goes to the chain */
    struct autoindex_entry *items;
    unsigned count, capacity;
    unsigned next; /* the first one whose text has not been made */
    struct str uri;
    struct str callback; /* JSONP */
    enum autoindex_format format;
    bool utf8; /* columns are characters */
    bool localtime, exact_size;
    bool begun, ended;
};

/* Appends about `size` bytes of the listing. True: that was the end of it. */
bool autoindex_text(struct autoindex_list *list, struct chain *out, size_t size);

#endif
