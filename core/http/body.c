/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The client's request body: kept in memory up to client_body_buffer_size, then in a temporary
 * file; or streamed; or dropped. Protocols feed it, handlers read it. Readers never consume a
 * buffered body, so that a retry or an error_page fallback can send it again. Subrequests use
 * their main request's body.
 */
#include <errno.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/http/answer.h"
#include "core/os/file.h"

#define SPOOL_IOV 64

static void give_continue(struct req *r)
{
    if (r->in->expect_continue && !r->body.continued && r->body.received == 0 && !r->head_sent) {
        r->body.continued = true;
        answer_informational(r, 100, NULL);
    }
}

/* Writes what is in memory to the temporary file. 0 or -1, logged. */
static int spool(struct req *r)
{
    struct body *b = &r->body;
    const struct core_loc *core = r->loc->core;
    struct iovec iov[SPOOL_IOV];

    if (b->file == NULL) {
        bool keep = core->client_body_in_file_only != BODY_FILE_OFF;
        int fd = file_temp(r->arena, core->client_body_temp_path.path,
                           core->client_body_temp_path.levels, !keep, 0600,
                           keep ? &b->file_name : NULL);

        if (fd < 0) {
            log_crit(&r->log, errno, "open() of a temporary file in \"%.*s\" failed",
                     STR_ARG(core->client_body_temp_path.path));
            return -1;
        }
        b->file = chain_file_new(fd);
        log_warn(&r->log, 0, "a client request body is buffered to a temporary file%s%.*s",
                 b->file_name.len ? " " : "", STR_ARG(b->file_name));
    }
    while (b->chain.bytes > 0) {
        size_t bytes;
        int n = chain_iov(&b->chain, iov, SPOOL_IOV, &bytes);

        if (file_pwritev(b->file->fd, iov, n, (off_t) b->spooled) != 0) {
            log_crit(&r->log, errno, "pwritev() to a temporary file failed");
            return -1;
        }
        b->spooled += bytes;
        chain_consume(&b->chain, bytes);
    }
    return 0;
}

static void remove_file(struct req *r)
{
    const struct core_loc *core = r->loc->core;

    if (r->body.file_name.len > 0 && core->client_body_in_file_only == BODY_FILE_CLEAN)
        unlink(r->body.file_name.ptr);
}

static void wake(struct req *r)
{
    if (r->body.streaming) {
        if (r->body.on_data != NULL)
            r->body.on_data(r);
        return;
    }
    if (r->body.reader != NULL) {
        struct req *reader = r->body.reader;

        r->body.reader = NULL;
        req_resume(reader);
    }
}

void body_failed(struct req *r, unsigned status)
{
    r->body.failed = status;
    r->keep_alive = false;
    r->lingering = false;
    if (r->body.discarding)
        return;
    /* Who reads the body then gives up without an answer: this is what the log says. */
    if (status == 408 && !r->head_sent)
        r->out.status = 408;
    wake(r);
}

static bool too_large(struct req *r)
{
    uint64_t max = r->loc->core->client_max_body_size;

    if (max == 0 || r->body.received <= max)
        return false;
    log_error(&r->log, 0, "client intended to send too large chunked body: %llu bytes",
              (unsigned long long) r->body.received);
    return true;
}

void body_feed(struct req *r, struct chain *in, bool end)
{
    struct body *b = &r->body;

    b->received += in->bytes;
    if (b->discarding) {
        chain_clear(in);
        b->complete = end;
        return;
    }
    if (b->length < 0 && too_large(r)) {
        chain_clear(in);
        r->ops->read_body(r, false);
        body_failed(r, 413);
        return;
    }
    chain_append(&b->chain, in);
    b->complete = end;
    if (b->streaming) {
        if (!end && b->chain.bytes >= r->loc->core->client_body_buffer_size)
            r->ops->read_body(r, false);
        wake(r);
        return;
    }
    if ((b->chain.bytes > r->loc->core->client_body_buffer_size || b->file != NULL
         || r->loc->core->client_body_in_file_only != BODY_FILE_OFF)
        && spool(r) != 0) {
        r->ops->read_body(r, false);
        body_failed(r, 500);
        return;
    }
    if (!end)
        return;
    if (b->file != NULL)
        chain_push_file(&b->chain, b->file, 0, b->spooled);
    wake(r);
}

/* The reader is gone: its wait must not be woken. */
static void cancel_read(struct wait *w)
{
    struct body *b = container_of(w, struct body, wait);

    b->reader = NULL;
}

bool body_is_gone(const struct req *r)
{
    const struct body *b = &r->main->body;

    return b->streaming && b->chain.bytes != b->received;
}

/* A stream of which nobody has taken anything is read as a whole after all. */
static void end_stream(struct req *main)
{
    struct body *b = &main->body;

    b->streaming = false;
    b->on_data = NULL;
    main->ops->read_body(main, true);
}

/*
 * The failure is told once: an error page that is proxied is then asked without a body, and what still
 * comes from the client is dropped. A body that did not come in time has nobody left to tell.
 */
static enum verdict tell_failure(struct req *r, struct body *b)
{
    unsigned status = b->failed;

    if (status == 408)
        return V_ABORT;
    chain_clear(&b->chain);
    chain_file_unref(b->file);
    b->file = NULL;
    b->received = b->spooled = 0;
    b->length = 0;
    b->failed = 0;
    b->discarding = true;
    return req_status(r, status);
}

enum verdict body_read(struct req *r)
{
    struct req *main = r->main;
    struct body *b = &main->body;

    if (unlikely(b->streaming) && !b->failed && !body_is_gone(main))
        end_stream(main);
    if (b->failed)
        return tell_failure(r, b);
    if (b->complete || b->discarding || body_is_gone(main))
        return V_NEXT;
    if (!b->started) {
        b->started = true;
        give_continue(main);
        main->ops->read_body(main, true);
        if (b->failed)
            return tell_failure(r, b);
        if (b->complete)
            return V_NEXT;
    }
    if (b->reader == NULL) {
        wait_end(&b->wait);
        b->reader = r;
        wait_begin(r, &b->wait, cancel_read);
    }
    return V_WAIT;
}

enum verdict body_stream(struct req *r, void (*on_data)(struct req *r))
{
    struct req *main = r->main;
    struct body *b = &main->body;

    b->on_data = on_data;
    if (b->complete || b->failed || b->discarding)
        return V_NEXT;
    b->streaming = true;
    if (!b->started) {
        b->started = true;
        give_continue(main);
        b->on_data = NULL; /* what is already here is the caller's to look at after the return */
        main->ops->read_body(main, true);
        b->on_data = on_data;
    }
    return V_NEXT;
}

void body_consumed(struct req *r)
{
    struct req *main = r->main;

    if (!main->body.complete && !main->body.failed
        && main->body.chain.bytes < main->loc->core->client_body_buffer_size)
        main->ops->read_body(main, true);
}

void body_discard(struct req *r)
{
    struct req *main = r->main;
    struct body *b = &main->body;

    if (r != main || b->complete || b->discarding || b->failed || b->started)
        return;
    b->discarding = true;
    if (main->status_wanted == 0)
        give_continue(main);
    main->ops->read_body(main, true);
}

void body_copy(struct req *r, struct chain *out)
{
    for (const struct piece *p = r->main->body.chain.first; p != NULL; p = p->next) {
        if (p->kind == PIECE_MEM)
            chain_push_mem(out, p->mem.block, p->mem.ptr, (size_t) p->len);
        else if (p->kind == PIECE_FILE)
            chain_push_file(out, p->file.file, p->file.offset, p->len);
    }
}

void body_release(struct req *r)
{
    remove_file(r);
    chain_clear(&r->body.chain);
    chain_file_unref(r->body.file);
    r->body.file = NULL;
}
