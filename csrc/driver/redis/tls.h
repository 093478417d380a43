/*
 * TLS without a socket: bytes of the wire in, bytes for the wire out, and the plain text between.
 * OpenSSL 3 does the work, TLS 1.2 and 1.3; the machine's openssl.cnf is not read. One thread per
 * context.
 */
#ifndef HF_DRIVER_REDIS_TLS_H
#define HF_DRIVER_REDIS_TLS_H

#include "core/error.h"

typedef struct hf__tls_context hf__tls_context;
typedef struct hf__tls hf__tls;

typedef struct hf__tls_options {
    /* PEM; empty: the system's authorities, or what SSL_CERT_FILE and SSL_CERT_DIR name */
    hf_slice ca;
    hf_slice roots;      /* PEM; whom to trust in place of those, where there is no `ca` */
    hf_slice cert;       /* PEM chain of the client; empty: none */
    hf_slice key;        /* PEM; goes with `cert` */
    hf_slice servername; /* to verify and to ask for (SNI) instead of the host; empty: the host */
    bool insecure;       /* neither chain nor name is verified */
} hf__tls_options;

/* Copies what it needs of `options`. Errors: HF_EINVAL (a PEM that cannot be read, a key that does
 * not fit; the message begins with the name of the setting), HF_ENOMEM. Never quotes a key. May
 * read files: authorities of the system. */
hf_code hf__tls_context_new(const hf__tls_options *options, const hf_allocator *allocator,
                            hf__tls_context **out, hf_error *error);
void hf__tls_context_free(hf__tls_context *context);

/* A client's side of one connection to `host` (a name, or an IP address, which is then looked for
 * in the certificate as such, and not asked for by SNI). NULL when memory is out. */
hf__tls *hf__tls_new(hf__tls_context *context, const char *host);
void hf__tls_free(hf__tls *tls);

/* Goes on with the handshake. True once it is complete. False with error->code HF_OK: more bytes
 * are needed, and there may be output. Else it has failed, with an alert for the server as output:
 * HF_EUNAVAIL for what a network may do, HF_EACCES with the reason (unknown authority, another
 * host's name, expired, a client certificate is asked for), HF_EPROTO where the other side speaks
 * no TLS, HF_ENOMEM. */
bool hf__tls_handshake(hf__tls *tls, hf_error *error);
/* Bytes that came from the wire. False: memory is out. */
bool hf__tls_receive(hf__tls *tls, const char *data, size_t len);
/* Plain text: the number of bytes; 0: none now; -1: the other side has closed (HF_EUNAVAIL), or
 * sent what is no TLS (HF_EPROTO), or refused our certificate (HF_EACCES; TLS 1.3 tells of that
 * only now), or memory is out. There may be output after it. */
int hf__tls_read(hf__tls *tls, char *data, size_t size, hf_error *error);
/* Encrypts all of it. False: memory is out, or the connection is broken. The handshake is
 * complete. */
bool hf__tls_write(hf__tls *tls, const char *data, size_t len, hf_error *error);
/* What is to be sent over the wire, until hf__tls_sent says how much of it was. Valid until the
 * next call. */
hf_slice hf__tls_output(hf__tls *tls);
void hf__tls_sent(hf__tls *tls, size_t len);

#endif
