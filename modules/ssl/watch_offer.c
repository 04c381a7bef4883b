/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ssl_certificate_watch where the keys are the key process's. The master opens a key's file, which that process may not, and does not read
 * it: it hands over the descriptor and the public half of the certificate, and goes on. When the process reports that it has the key that
 * belongs to it, the key's next generation is put into force there first, and then the certificate is published with its number.
 * So whatever number a worker comes by can be signed with; no worker has anything to do with it, or a say in it.
 *
 * What the process has reported of is served only if the files are still those that it has seen.
 */
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/sha.h>
#include <stdlib.h>
#include <unistd.h>

#include "modules/ssl/keyproc.h"
#include "modules/ssl/watch.h"

/* For handshakes that are in the midst of it: what they may take, and a pause of the process. */
#define GRACE_MS 5000

struct watch_offer {
    struct watch_state now;
    unsigned char digest[SHA256_DIGEST_LENGTH]; /* of the certificate's bytes */
    uint32_t generation;
    X509 *leaf;
    uint32_t len;
    char bytes[]; /* of the certificate, in the slot's form */
};

void watch_offer_free(struct watched *w)
{
    struct watch_offer *o = w->offer;

    w->offer = NULL;
    if (o == NULL)
        return;
    (*w->offers)--;
    X509_free(o->leaf);
    free(o);
}

/* Whether it is the certificate that is in force. */
static bool is_in_force(const struct watched *w, const unsigned char *digest, X509 *leaf,
                        const STACK_OF(X509) * chain)
{
    if (memcmp(digest, w->digest, sizeof(w->digest)) == 0)
        return true;
    return w->kept->generation == 0 && X509_cmp(leaf, w->certificate_object.leaf) == 0 &&
           watch_same_chain(chain, w->certificate_object.chain);
}

/* What is to be offered: the certificate is whole. NULL: why not is in r. */
static struct watch_offer *offer_new(const struct watched *w, const struct watch_state *now,
                                     struct watch_reading *r)
{
    STACK_OF(X509) *chain = NULL;
    struct watch_offer *o;
    const char *error = NULL;
    X509 *leaf;

    ERR_clear_error();
    leaf = ssl_load_certificate(str_from(r->bytes, r->certificate_len), &chain, &error);
    if (leaf == NULL) {
        watch_blame(r, &w->certificate, error);
        return NULL;
    }
    o = mem_alloc(sizeof(*o) + r->certificate_len);
    o->now = *now;
    o->leaf = leaf;
    o->len = r->certificate_len;
    memcpy(o->bytes, r->bytes, o->len);
    SHA256((const unsigned char *) o->bytes, o->len, o->digest);
    o->generation = w->kept->generation + !is_in_force(w, o->digest, leaf, chain);
    sk_X509_pop_free(chain, X509_free);
    return o;
}

/* The key's file, as it was seen. -1: why not is in r, unless it changes as we speak. */
static int open_key(const struct watched *w, const struct watch_state *now, struct watch_reading *r)
{
    int fd = open(w->key.path.ptr, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat st;

    if (fd < 0) {
        watch_blame(r, &w->key, strerror(errno));
        return -1;
    }
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        watch_blame(r, &w->key, "not a regular file");
    else if (ssl_same_file(&st, &now->key))
        return fd;
    close(fd);
    return -1;
}

static int send_offer(const struct config *config, const struct watched *w,
                      const struct watch_offer *o, int fd, struct watch_reading *r)
{
    unsigned char *public_half = NULL;
    int len = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(o->leaf), &public_half), rc = -1;
    EVP_PKEY *key = X509_get0_pubkey(o->leaf);
    struct keyproc_order order = { .what = KEYPROC_OFFER,
                                   .number = w->kept->number,
                                   .generation = o->generation,
                                   .len = (uint32_t) MAX(len, 0) };

    if (key == NULL || keyproc_kind_of(key) == KEYPROC_KINDS || len <= 0 ||
        len > KEYPROC_PUBLIC_MAX)
        watch_blame(r, &w->certificate,
                    "\"ssl_key_process\" can keep only RSA, ECDSA, Ed25519 and Ed448 keys");
    else
        rc = keyproc_send(config, &order, public_half, fd);
    OPENSSL_free(public_half);
    return rc;
}

bool watch_offer(const struct config *config, struct watched *w, const struct watch_state *now,
                 struct watch_reading *r)
{
    struct watch_offer *o;
    int fd, rc;

    if (!watch_read_certificate(w, now, r) || (o = offer_new(w, now, r)) == NULL)
        return false;
    (*w->offers)++;
    w->offer = o;
    fd = open_key(w, now, r);
    rc = fd >= 0 ? send_offer(config, w, o, fd, r) : -1;
    if (fd >= 0)
        close(fd);
    if (rc == 0)
        return true;
    watch_offer_free(w);
    return false;
}

/* The process knows of it first. 0, or -1: not now. */
static int put_into_force(const struct config *config, struct watched *w)
{
    const struct watch_offer *o = w->offer;
    struct keyproc_key *key = w->kept;
    struct keyproc_order order = { .what = KEYPROC_COMMIT,
                                   .number = key->number,
                                   .generation = o->generation,
                                   .ms = keyproc_conf_of(config)->handshake_ms + GRACE_MS };

    if (keyproc_send(config, &order, NULL, -1) != 0)
        return -1;
    key->generation = o->generation;
    key->kind = keyproc_kind_of(X509_get0_pubkey(o->leaf));
    X509_free(key->leaf);
    key->leaf = o->leaf;
    X509_up_ref(key->leaf);
    watch_publish(w, o->bytes, o->len, 0, o->generation);
    return 0;
}

static void conclude(const struct config *config, struct watched *w,
                     const struct keyproc_report *report)
{
    struct watch_offer *o = w->offer;
    struct watch_state after;
    char why[1200];

    watch_look_at(w, &after);
    if (!watch_same_state(&o->now, &after))
        return; /* somebody is at it: in a second */
    if (report->status != KEYPROC_OK) {
        snprintf(why, sizeof(why), "\"%.*s\": %s", STR_ARG(w->key.path), report->why);
        watch_unfit(w, &o->now, why);
        return;
    }
    if (o->generation != w->kept->generation && put_into_force(config, w) != 0)
        return;
    memcpy(w->digest, o->digest, sizeof(w->digest));
    w->lacks = false;
    watch_settle(w, &o->now);
}

void watch_heed_reports(const struct config *config)
{
    const struct keyproc_keys *keys = &keyproc_conf_of(config)->keys;
    struct keyproc_report report;

    while (keyproc_next_report(config, &report)) {
        struct watched *w =
            report.number < keys->count ? keys->items[report.number]->watched : NULL;

        if (w == NULL)
            continue;
        if (report.status == KEYPROC_NO_KEY) {
            w->lacks = report.generation == w->kept->generation;
        } else if (w->offer != NULL && w->offer->generation == report.generation) {
            conclude(config, w, &report);
            watch_offer_free(w);
        }
    }
}
