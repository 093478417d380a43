/* Certificates made on the spot, and a TLS server without a socket. */
#ifndef HF_TEST_TLS_H
#define HF_TEST_TLS_H

#include <openssl/ssl.h>
#include <stdbool.h>

typedef struct identity {
    X509 *cert;
    EVP_PKEY *key;
    char *cert_pem;
    char *key_pem;
} identity;

typedef struct identity_options {
    const char *name;       /* its common name */
    const char *alt;        /* "DNS:a.test, IP:127.0.0.1"; NULL: none */
    const identity *issuer; /* NULL: itself */
    bool authority;
    long from_s; /* from now; 0 and 0: an hour ago to an hour from now */
    long until_s;
} identity_options;

void identity_make(identity *id, const identity_options *options);
void identity_free(identity *id);

/* What is in a memory BIO, which is freed. */
char *bio_text(BIO *bio);

/* A server, with memory in place of a wire. */
typedef struct tls_server {
    SSL_CTX *ctx;
    SSL *ssl;
    BIO *in;
    BIO *out;
    bool shaken; /* its handshake is complete */
} tls_server;

/* `wanted`: whose certificates a client must show one of; NULL: it need not show any. Change
 * `ctx` as you like before tls_server_accept. */
void tls_server_open(tls_server *s, const identity *id, const identity *wanted);
void tls_server_accept(tls_server *s);
void tls_server_close(tls_server *s);
/* Goes on with the handshake. False: it has failed. */
bool tls_server_shake(tls_server *s);

#endif
