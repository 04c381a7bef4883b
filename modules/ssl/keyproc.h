/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The key process (ssl_key_process): a process of its own user that alone holds the private keys and does what needs them, so
 * that who takes over a worker has no key. The parts:
 *
 *   keyproc.c           the directives; which keys a configuration has
 *   keyproc_master.c    the master: starts the process, gives each worker a socket to it
 *   keyproc_serve.c     the process itself
 *   keyproc_store.c     the keys that it has: which, since when, and until when
 *   keyproc_named.c     those that variables name
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

enum { KEYPROC_SIGN = 1, KEYPROC_DECRYPT, KEYPROC_FIND };
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

#define KEYPROC_PRINT_LEN 32 /* of keyproc_print */
#define KEYPROC_NAME_MAX (KEYPROC_PRINT_LEN + 4096)

/*
 * A datagram: this, then len bytes: what is to be signed (not a digest of it), or decrypted. Between them stands, of a key that variables
 * name, and only there, which one: the print of its public half, and a path. KEYPROC_FIND asks whether it is there.
 */
struct keyproc_request {
    uint64_t id;
    uint32_t key, generation; /* its number, and how often its file had been replaced */
    uint8_t op, padding, digest, zero;
    uint16_t version,
        other_version; /* KEYPROC_DECRYPT: what the client offered; 0, or a second one to accept */
    uint32_t len, name_len;
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
    X509 *leaf;             /* whose key it must be, in the generation that is in force */
    struct str certificate; /* leaf NULL: what that is to be parsed from ("data:…"), with the key, when it is needed */
    EVP_PKEY *handle;       /* as contexts use it; NULL where they do not */
    enum keyproc_kind kind;
    unsigned uses;
    uint32_t number, generation;
    struct watched *watched; /* of ssl_certificate_watch; else NULL */
    const struct ssl_bounds *bounds; /* variables name it, within these; else NULL */
    unsigned cache_max; /* of those: how many a worker's thread keeps */
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
    uint64_t handshake_ms; /* that long a handshake may last */
};

const struct keyproc_conf *keyproc_conf_of(const struct config *config);
/* Whether keys of this configuration are the process's: not while it is tested or explained. */
bool keyproc_is_on(const struct conf *cf);
/* The key of a file, for a context: the number of it, whoever named it first. NULL: reported. The reference is the caller's. */
EVP_PKEY *keyproc_key(struct conf *cf, const struct ssl_file *file,
                      const struct ssl_passwords *passwords, X509 *leaf, unsigned uses);
/*
 * The same for a file that may be replaced: its key is nobody else's. In *key, which is NULL before the first context. The master
 * sees to it that the process has what is in the file (watch_offer.c).
 */
EVP_PKEY *keyproc_key_watched(struct conf *cf, const struct ssl_file *file,
                              const struct ssl_passwords *passwords, X509 *leaf, unsigned uses,
                              struct watched *watched, struct keyproc_key **key);
/* For a file that the process reads, but parses only when the key is needed, as that certificate ("data:…") is by those who need it. */
struct keyproc_key *keyproc_key_late(struct conf *cf, const struct ssl_file *file,
                                     const struct ssl_passwords *passwords, struct str certificate);
void keyproc_use_late(struct keyproc_key *key, unsigned uses);
/* For files that variables name: the process opens them when they are needed, with its own rights. cache NULL: none was asked for. */
struct keyproc_key *keyproc_key_named(struct conf *cf, const struct ssl_file *file,
                                      const struct ssl_passwords *passwords,
                                      const struct ssl_cache *cache, unsigned uses);
/* A handshake of this configuration may last that long. */
void keyproc_handshakes_last(struct conf *cf, uint64_t ms);
/* What the keys of a context will be asked to do. */
unsigned keyproc_uses(const struct ssl_spec *spec, bool server);
/* Whether the settings of a context would bring a key into the master, where that is not wanted; by -t as well. 0, or -1 (reported). */
int keyproc_allows(struct conf *cf, const struct ssl_spec *spec);
/* Makes the passwords in this process's memory unreadable. later: but for those that may be needed again. */
void keyproc_wipe(const struct config *config, bool later);

/* Processes ----------------------------------------------------------------------------------- */

extern const struct module_processes keyproc_processes; /* keyproc_master.c */

struct keyproc_start {
    const struct config *config;
    int control;        /* to the master: its end is ours */
    const int *workers; /* sockets of workers that are there already */
    unsigned count;
    bool first; /* any key that is missing is an error; else it is only said */
};

/*
 * From the master to the process. What is said of a descriptor comes with one.
 *
 * A file that is watched has been replaced: the master, which may open it, and does not read it, sends it as an offer, of a
 * generation that is still in force, or the next one. The process reports whether it holds the key that belongs to the certificate's public
 * half, and keeps it. With KEYPROC_COMMIT it is in force: handshakes with the one before it may go on for ms.
 */
enum {
    KEYPROC_WORKER, /* a new worker's socket */
    KEYPROC_LOG,    /* the file of the number-th target of the error log */
    KEYPROC_OFFER,  /* a file, in len bytes the public half */
    KEYPROC_COMMIT,
};
struct keyproc_order {
    uint32_t what, number, generation, len;
    uint64_t ms;
};

#define KEYPROC_PUBLIC_MAX 8192 /* bytes of a public half in DER */

/* From the process to the master: about an offer; or, with KEYPROC_NO_KEY, about a key that it had to begin without. */
struct keyproc_report {
    uint32_t number, generation, status;
    char why[1024]; /* where the status is not KEYPROC_OK */
};

/* In the master. To the process of a configuration: 0, or -1: not now. fd -1: none. */
int keyproc_send(const struct config *config, const struct keyproc_order *order,
                 const unsigned char *bytes, int fd);
/* The next one that has come from there. */
bool keyproc_next_report(const struct config *config, struct keyproc_report *report);
/* Another number for each process; 0: there is none now. What has been sent to another one is lost. */
uint64_t keyproc_instance(const struct config *config);

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
/* keyproc_store.c. All keys; how many of them could not be had: that is logged. */
unsigned keyproc_store_load(const struct keyproc_start *start);
unsigned keyproc_store_count(void);
/* A key, in one of the generations that are in use, until it is put back. NULL: it is not there. Waits while it is parsed. */
const struct keyproc_secret *keyproc_store_get(uint32_t number, uint32_t generation);
void keyproc_store_put(const struct keyproc_secret *s);
void keyproc_store_offer(const struct keyproc_order *order, const unsigned char *public_half, int fd,
                         struct keyproc_report *report);
void keyproc_store_commit(const struct keyproc_order *order);
/* The next key from number *number on that is watched and not there. */
bool keyproc_store_lacks(uint32_t *number, struct keyproc_report *report);
/* Keys whose time is over go. In how many milliseconds the next one does; -1: none. */
int keyproc_store_retire(void);
/* The key's own entry of the configuration. */
const struct keyproc_key *keyproc_store_key(uint32_t number);
/*
 * keyproc_named.c: whether the configuration may lead to that name, which stands as in a request; and the key, for one use. NULL, or why it is
 * not there, with what is in the library's queue. The thread's cache is made
 * when it is needed.
 */
bool keyproc_named_allows(const struct keyproc_key *key, struct str name);
const char *keyproc_named_get(struct ssl_cache **cache, const struct keyproc_key *key,
                              struct str name, struct keyproc_secret *s);
void keyproc_named_put(struct keyproc_secret *s);
/* Of a key's public half, whichever way it is encoded. 0 or -1. */
int keyproc_print(EVP_PKEY *key, unsigned char *out);
/* keyproc_serve.c: the log is one thread's at a time. */
void keyproc_log_begin(void);
void keyproc_log_end(void);
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
int keyproc_call(struct keyproc_request *rq, struct str name, const unsigned char *payload,
                 unsigned char *out, size_t *len);
/* Whether the process has the key of that path and public half. True where it cannot be asked now. */
bool keyproc_find(EVP_PKEY *public_half, uint32_t number, struct str path);

/* keyproc_provider.c: a key that has the public half of another, and a number. NULL: the library's queue says why. */
EVP_PKEY *keyproc_handle(EVP_PKEY *public_half, enum keyproc_kind kind, uint32_t number,
                         uint32_t generation);
/* The same for a key that variables name: by a path, too. */
EVP_PKEY *keyproc_handle_named(EVP_PKEY *public_half, uint32_t number, struct str path);

#endif
