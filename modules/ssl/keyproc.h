/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The key process (ssl_key_process): a process of its own user that alone holds the private keys and does what needs them, so
 * that who takes over a worker has no key. The parts:
 *
 *   keyproc.c           the directives; which keys a configuration has
 *   keyproc_master.c    the master: starts the process, gives each worker a socket to it
 *   keyproc_serve.c     the process itself
 *   keyproc_secret.c    what it does with a key
 *   keyproc_client.c    the worker's end of the socket: handshakes pause until the answer has come
 *   keyproc_provider.c  keys as the library sees them in a worker: a public half and a number
 *   keyproc_message.c   what goes through the socket, and what the process does not do
 */
#ifndef MODULES_SSL_KEYPROC_H
#define MODULES_SSL_KEYPROC_H

#include <sys/types.h>

#include "modules/ssl/ssl.h"

/* Messages ------------------------------------------------------------------------------------ */

enum { KEYPROC_SIGN = 1, KEYPROC_DECRYPT };
enum { KEYPROC_PLAIN, KEYPROC_PKCS1, KEYPROC_PSS };
enum {
    KEYPROC_NO_DIGEST,
    KEYPROC_MD5_SHA1,
    KEYPROC_SHA1,
    KEYPROC_SHA224,
    KEYPROC_SHA256,
    KEYPROC_SHA384,
    KEYPROC_SHA512,
    KEYPROC_DIGESTS,
};
enum keyproc_kind {
    KEYPROC_RSA,
    KEYPROC_RSA_PSS,
    KEYPROC_EC,
    KEYPROC_ED25519,
    KEYPROC_ED448,
    KEYPROC_KINDS
};
/* What a key is configured for: bits. */
enum { KEYPROC_SERVER = 1, KEYPROC_CLIENT = 2, KEYPROC_DHE = 4 };

#define KEYPROC_PAYLOAD_MAX (64 * 1024) /* a client signs all messages of a handshake of TLS 1.2 */
#define KEYPROC_RESULT_MAX 2048         /* RSA with 16,384 bits */
#define KEYPROC_SECRET_LEN 48           /* RFC 5246, 7.4.7.1 */

/* A datagram: this, then len bytes: what is to be signed (not a digest of it), or decrypted. */
struct keyproc_request {
    uint64_t id;
    uint32_t key;
    uint8_t op, padding, digest, zero;
    uint16_t version,
        other_version; /* KEYPROC_DECRYPT: what the client offered; 0, or a second one to accept */
    uint32_t len;
};

enum { KEYPROC_OK, KEYPROC_REFUSED, KEYPROC_NO_KEY, KEYPROC_FAILED, KEYPROC_RESTARTED };

/*
 * A datagram: this, then len bytes. KEYPROC_RESTARTED answers nothing: it says that there is a new process, which knows of no
 * request that was sent before.
 */
struct keyproc_answer {
    uint64_t id;
    uint32_t status;
    uint32_t len;
};

/*
 * Whether a datagram is a request for something that TLS does with a key of this kind, configured for `uses`. NULL, or why it is refused.
 * The key's number is to be looked up by keyproc_key_of before.
 */
const char *keyproc_check(const unsigned char *data, size_t size, enum keyproc_kind kind,
                          unsigned uses);
/* The header, if the datagram is one by its sizes. 0 or -1. */
int keyproc_parse(struct keyproc_request *rq, const unsigned char *data, size_t size);
/* Whether these bytes are what an end of TLS signs (RFC 8446, 4.4.3; RFC 5246, 7.4.3 and 7.4.8). */
bool keyproc_is_signed_by_tls(const unsigned char *p, size_t len, unsigned uses);
/* A library's name of a digest, and back. KEYPROC_DIGESTS: none of ours. */
const char *keyproc_digest_name(unsigned digest);
unsigned keyproc_digest_by_name(const char *name);

/* The configuration --------------------------------------------------------------------------- */

/* A key of the configuration; its number is its index. */
struct keyproc_key {
    struct str path;
    const struct ssl_passwords *passwords;
    struct conf_pos pos;
    X509 *leaf;       /* whose key it must be */
    EVP_PKEY *handle; /* as contexts use it */
    enum keyproc_kind kind;
    unsigned uses;
};

struct keyproc_keys {
    struct keyproc_key **items;
    unsigned count, capacity;
};

struct keyproc_conf {
    bool on;
    struct conf_pos pos; /* where that stands */
    const char *user;    /* whose process it is; NULL: ours (not the super-user's) */
    uid_t uid;
    gid_t gid;
    struct keyproc_keys keys;
    struct table *by_path; /* struct keyproc_key *, the last one of that path */
};

const struct keyproc_conf *keyproc_conf_of(const struct config *config);
/* Whether keys of this configuration are the process's: not while it is tested or explained. */
bool keyproc_is_on(const struct conf *cf);
/* The key of a file, for a context: the number of it, whoever named it first. NULL: reported. The reference is the caller's. */
EVP_PKEY *keyproc_key(struct conf *cf, const struct ssl_file *file,
                      const struct ssl_passwords *passwords, X509 *leaf, unsigned uses);
/* What the keys of a context will be asked to do. */
unsigned keyproc_uses(const struct ssl_spec *spec, bool server);
/* Whether the settings of a context would bring a key into the master, where that is not wanted; by -t as well. 0, or -1 (reported). */
int keyproc_allows(struct conf *cf, const struct ssl_spec *spec);
/* Makes the passwords in this process's memory unreadable. */
void keyproc_wipe(const struct config *config);

/* Processes ----------------------------------------------------------------------------------- */

extern const struct module_processes keyproc_processes; /* keyproc_master.c */

struct keyproc_start {
    const struct config *config;
    int control;        /* to the master: its end is ours */
    const int *workers; /* sockets of workers that are there already */
    unsigned count;
    bool first; /* any key that is missing is an error; else it is only said */
};

/* Comes with a descriptor to the process: a worker's socket; any other number: the file of that target of the error log. */
#define KEYPROC_NEW_WORKER UINT32_MAX

struct keyproc_secret {
    EVP_PKEY *key; /* NULL: could not be read */
    enum keyproc_kind kind;
    unsigned uses;
    unsigned char rejection[32]; /* of RSA: what is made of messages that do not decrypt */
    bool decrypts;               /* of RSA */
    OSSL_LIB_CTX *library;       /* where operations with the key are looked for: in a provider's that keeps it */
    char properties[64];
};

/* When `key` and `kind` are there. 0 or -1. */
int keyproc_secret_prepare(struct keyproc_secret *s);
/* Does what a request that keyproc_check has let through asks for. 0, with *len bytes in out, which has room for KEYPROC_RESULT_MAX; or -1. */
int keyproc_secret_use(const struct keyproc_secret *s, const struct keyproc_request *rq,
                       const unsigned char *in, unsigned char *out, size_t *len);
/* In a fork of the master: becomes the key process. */
void NORETURN keyproc_serve(const struct keyproc_start *start);
/* The kind of a key or a certificate's; KEYPROC_KINDS: none that we know. */
enum keyproc_kind keyproc_kind_of(const EVP_PKEY *key);

/* In a worker: the socket to the process (taken over). Before the loop is there. */
void keyproc_client_init(int fd);
int keyproc_client_start(void);
void keyproc_client_stop(void);
/* Whether handshakes may have to pause. */
bool keyproc_client_active(void);
/*
 * Has the process do something. Pauses the fibre that runs, which must have been given a struct conn_tls. 0, with at most *len bytes
 * in out; or -1, logged.
 */
int keyproc_call(struct keyproc_request *rq, const unsigned char *payload, unsigned char *out,
                 size_t *len);

/* keyproc_provider.c: a key that has the public half of another, and a number. NULL: the library's queue says why. */
EVP_PKEY *keyproc_handle(EVP_PKEY *public_half, enum keyproc_kind kind, uint32_t number);

#endif
