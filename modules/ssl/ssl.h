/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * TLS by OpenSSL: connections (conn_tls*.c), what they are set up from (context.c), and the
 * library's errors in words (error.c). Neither knows of HTTP, nor which end it is: listening addresses
 * (http_ssl.c), connections to upstreams and layer 4 all use what stands here.
 */
#ifndef MODULES_SSL_SSL_H
#define MODULES_SSL_SSL_H

#include <openssl/ssl.h>

#include "core/config/config.h"
#include "core/event/tls.h"

/* Contexts ------------------------------------------------------------------------------------ */

/* ssl_verify_client, proxy_ssl_verify. */
enum { SSL_VERIFY_OFF, SSL_VERIFY_ON, SSL_VERIFY_OPTIONAL, SSL_VERIFY_NO_CA };

enum {
    SSL_PROTO_SSL2 = 1, SSL_PROTO_SSL3 = 2, SSL_PROTO_TLS1 = 4, SSL_PROTO_TLS11 = 8,
    SSL_PROTO_TLS12 = 16, SSL_PROTO_TLS13 = 32,
};

/* "NAME VALUE" of ssl_conf_command. */
struct ssl_command {
    struct str name, value;
    struct conf_pos pos;
};

struct ssl_commands {
    struct ssl_command *items;
    unsigned count, capacity;
};

struct ssl_text {
    struct str text;
    struct conf_pos pos;
};

/* A file of the configuration, by the path as it is opened, or "data:…", "store:…". */
struct ssl_file {
    struct str path; /* ptr NULL: not given; with variables: as it was written */
    struct conf_pos pos;
    const struct ssl_name *name; /* of a path with variables; else NULL */
};

struct ssl_files {
    struct ssl_file *items;
    unsigned count, capacity;
};

/* The passwords of a file, one a line, to be tried on each key. NULL: ask the terminal, as the library does. */
struct ssl_passwords {
    struct str_list list;
    struct conf_pos pos;
    bool later; /* the key process may need them again, when a key comes later */
};

struct ssl_session_cache; /* sessions.c */
struct ssl_name;          /* pairs.c */
struct ssl_cache;         /* cert_cache.c */
struct ssl_watch;         /* watch.c */
struct ssl_lazy;          /* lazy.c */
struct keyproc_key;       /* keyproc.h */
struct eval;

/* Of session tickets, in the order of the files: the first one encrypts. */
struct ssl_ticket_keys {
    struct ssl_ticket_key *items;
    unsigned count, capacity;
};

/*
 * What a context is made from, server's or client's. Zero and empty are the library's defaults; the rows of ssl_… and
 * proxy_ssl_… store into one of these.
 */
struct ssl_spec {
    struct ssl_files certificates, keys; /* pairs, in this order */
    struct ssl_passwords *passwords;
    struct ssl_cache *cache;             /* of what names with variables have led to; NULL: none */
    struct ssl_watch *watch;             /* of the pairs in files, which may be replaced; NULL: they are not looked after */
    struct ssl_lazy *lazy;               /* pairs that only handshakes parse; NULL: none */
    const struct keyproc_key **kept;     /* by the pair: keys that variables name and the key process opens; NULL: none */
    unsigned protocols;                  /* SSL_PROTO_ bits */
    struct ssl_text ciphers;
    bool prefer_server_ciphers;
    struct ssl_text curves;              /* "auto": as the library has them */
    struct ssl_file dhparam;
    struct ssl_commands commands;
    struct res_file *key_log;            /* where secrets of connections are written; NULL: nowhere */
    unsigned verify;
    int64_t verify_depth;
    struct ssl_file client_ca;           /* trusted, and named to the client (server's end only) */
    struct ssl_file trusted;
    struct ssl_file crl;
    bool keep_chain; /* a session is good only if its certificate's chain can be told anew (ocsp_chain) */
    uint64_t session_timeout_s;
    struct ssl_session_cache *session_cache; /* NULL: none; of a server's end, as are the next */
    bool session_tickets;
    struct ssl_ticket_keys ticket_keys;      /* none: random ones in a zone */
    struct res_zone *ticket_zone;            /* that one; set with the context */
    struct conf_pos pos;                 /* where errors without a better place are reported */
};

/*
 * A context with what the spec says, freed with the config. Reads the files, by the rights that the process has now (the
 * master, before workers are started, which inherit what was read). NULL when errors were reported.
 */
SSL_CTX *ssl_context_new(struct conf *cf, struct ssl_spec *spec, bool server);
/* A handshake takes another context in its midst (SNI), with all that the library does not take over by itself. 0 or -1. */
int ssl_context_switch(SSL *ssl, SSL_CTX *ctx, const struct ssl_spec *spec);
/*
 * The name that the client asks for, while its hello is looked at: where names of certificates hold variables, sessions are good for this
 * name alone (RFC 6066, 3), for another one may have another certificate. 0 or -1.
 */
int ssl_context_name(SSL *ssl, struct str name);

/*
 * pairs.c: certificates and keys whose names hold variables. They are no part of the context: whoever makes a handshake
 * asks for the names and puts what they lead to into the connection.
 */
bool ssl_pair_is_dynamic(const struct ssl_spec *spec, unsigned i);
bool ssl_has_dynamic(const struct ssl_spec *spec);
struct ssl_pair_names {
    struct str certificate, key; /* as the variables make them; in the subject's memory */
};
struct ssl_pair_names ssl_pair_eval(struct eval *e, const struct ssl_spec *spec, unsigned i);
/* Loads a pair, in a worker, by its rights, and waits for the disk. 0, or -1: logged, as an error. */
int ssl_pair_use(SSL *ssl, const struct ssl_spec *spec, unsigned i,
                 const struct ssl_pair_names *names, const struct logger *log);

/*
 * watch.c: the files of a server's pairs are looked after from here on, before they are read for the context. NULL: reported.
 */
struct ssl_watch *ssl_watch_new(struct conf *cf, const struct ssl_spec *spec);
/* The context's current pair is this one of the spec. */
void ssl_watch_keep(struct ssl_watch *watch, unsigned i, SSL_CTX *ctx);
/* With a key process: the key of a pair, for a context; *key NULL: it is not watched. 0, or -1: reported. */
int ssl_watch_key(struct conf *cf, const struct ssl_watch *watch, unsigned i, X509 *leaf,
                  unsigned uses, EVP_PKEY **key);

/* Setters [struct ssl_cache *]; [struct ssl_files], [struct ssl_file], [struct ssl_passwords *], [struct ssl_commands]. */
conf_setter ssl_set_file_list, ssl_set_file, ssl_set_password_file, ssl_set_command;
conf_setter ssl_set_text; /* [struct ssl_text] */
conf_setter ssl_set_key_log; /* [struct res_file *] */
conf_setter ssl_set_certificate_cache;
/* [struct ssl_session_cache *], [struct ssl_ticket_keys] */
conf_setter ssl_set_session_cache, ssl_set_ticket_key;
extern const struct conf_enum ssl_protocol_names[], ssl_verify_names[];

/* commands.c: ssl_conf_command. 0 or -1. */
int ssl_use_commands(struct conf *cf, SSL_CTX *ctx, const struct ssl_commands *commands, bool server);
/* Whether the connection's context was asked to have the kernel encrypt. */
bool ssl_asks_kernel(const SSL *ssl);
/* key_log.c: what connections of this context agree on is written to the file. 0 or -1. */
int ssl_log_keys(SSL_CTX *ctx, struct res_file *file);
/* certificate.c: leaves, chains and keys, by path, "data:" or "store:". NULL + *error: what failed; the rest is in the queue. */
X509 *ssl_load_certificate(struct str path, STACK_OF(X509) **chain, const char **error);
EVP_PKEY *ssl_load_key(struct str path, const struct ssl_passwords *passwords, const char **error);
/*
 * objects.c: the same, each file read once for a configuration. The references are the caller's.
 */
X509 *ssl_object_certificate(struct conf *cf, struct str path, STACK_OF(X509) **chain,
                             const char **error);
EVP_PKEY *ssl_object_key(struct conf *cf, struct str path, const struct ssl_passwords *passwords,
                         const char **error);
/* The files of many contexts that are to be made, read by several threads at once, before the first of these is. */
struct ssl_preload *ssl_preload_new(struct conf *cf);
void ssl_preload_add(struct ssl_preload *p, const struct ssl_spec *spec);
void ssl_preload(struct ssl_preload *p);
/* Whether this is the first time that somebody asks this about the certificate. */
bool ssl_object_unjudged(struct str path);
void ssl_objects_free(void);
/* judge.c: warns, for -t, of a certificate that expires soon or has, and of a chain that is not whole. */
void ssl_judge(struct conf *cf, const struct ssl_file *file, SSL_CTX *ctx, X509 *leaf,
               STACK_OF(X509) *chain);
/* The path of a key as a line of the log may have it: a PIN that stands in it is not shown. Good until the next call. */
struct str ssl_shown(struct str path);
/* Whether a path names a file that a watcher could look at. */
bool ssl_is_file(struct str path);

/* Connections --------------------------------------------------------------------------------- */

struct conn_tls;

/* What a connection is set up with beside its SSL_CTX. Lives as long as the connection. */
struct conn_tls_options {
    size_t buffer_size; /* the largest record (ssl_buffer_size) */
    bool early_data;    /* the server's end: some context of the address may accept it */
};

/* Bytes of early data that a client may send: what contexts promise, and all that is ever kept of them. */
#define CONN_TLS_EARLY_MAX 16384

/*
 * The server's end over raw, whose owner it becomes; see core/event/tls.h. NULL: out of memory in the library, logged.
 * first: bytes that were read before (the reference is taken, in any case).
 */
struct conn *conn_tls_accept(struct conn *raw, SSL_CTX *ctx, const struct conn_tls_options *options,
                             struct tls_first first);
/*
 * The client's end. Between this and the first turn of the loop the caller may set up conn_tls_ssl: server name, session
 * to be resumed, name to verify. The handshake begins with the turn, or when raw has connected.
 */
struct conn *conn_tls_connect(struct conn *raw, SSL_CTX *ctx, const struct conn_tls_options *options);

/* Whether this is one of ours. */
bool conn_is_tls(const struct conn *c);
/* The library's object; NULL once closed. */
SSL *conn_tls_ssl(const struct conn *c);
/* After how many records a connection of TLS 1.3 changes its key for writing; fewer in tests. */
extern uint32_t conn_tls_key_records;
/* The conn of a library's object: for callbacks. */
struct conn *conn_tls_of(const SSL *ssl);
void conn_tls_set_options(struct conn *c, const struct conn_tls_options *options);
bool conn_tls_established(const struct conn *c);
/* See core/event/tls.h. */
bool conn_tls_early(const struct conn *c);
void conn_tls_hold(struct conn *c);
/*
 * The client's end, whose handshake, or an operation with EPROTO, has failed: why, for the caller's log, where nothing stands yet.
 * *err: 0, or errno.
 */
const char *conn_tls_failure(const struct conn *c, int *err);
/* The library's reason (SSL_R_…) for that; 0: it has none. */
int conn_tls_reason(const struct conn *c);
struct str conn_tls_protocol(const struct conn *c);
/* From a callback of the handshake: it fails because we want it to. The log says "handshake rejected" and no more. */
void conn_tls_rejected(struct conn *c);
/*
 * The handshake had stopped for something of ours (a callback that said "retry": a certificate to be loaded, a signature to be
 * made elsewhere), which has come: it goes on from the loop.
 */
void conn_tls_go_on(struct conn *c);
/* The peer has said that this is the end of its data (close_notify): only then nobody has cut it. */
bool conn_tls_ended(const struct conn *c);
/* Frees recycled memory (leak checks). */
void conn_tls_trim(void);

/* memory.c: the library's buffers are recycled from here on, if it has not allocated anything yet; and freed. */
void ssl_memory_init(void);
void ssl_memory_trim(void);
/* While it is on, what the library frees in this thread is made unreadable: where it parses what is secret. */
void ssl_memory_wipe(bool on);
/* A connection has gone, IN_USE are left: what most of them held goes back to the system. */
void ssl_memory_gone(unsigned in_use);

/* Errors -------------------------------------------------------------------------------------- */

/* " (SSL: error:… error:…)" of what is in the library's queue, which is empty afterwards. In static memory. */
const char *ssl_errors(void);
/* conf_error_at with that behind the sentence. */
void ssl_conf_error(struct conf *cf, struct conf_pos pos, const char *fmt, ...) PRINTF_LIKE(3, 4);
/*
 * What an operation on a connection failed with: logged in nginx's words, at info where the peer can bring it about. sslerr:
 * SSL_get_error's; err: errno, where that says SSL_ERROR_SYSCALL. Empties the queue.
 */
void ssl_log_failure(const struct logger *log, int sslerr, int err, const char *what);

#endif
