/*
 * OpenSSL reads and writes through two BIOs of our own, each over a buffer: what came from the wire
 * and what is to go there.
 */
#include "driver/redis/tls.h"

#include "driver/redis/tls-parts.h"
#include "util/alloc.h"
#include "util/buffer.h"

#include <assert.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <string.h>

#if OPENSSL_VERSION_NUMBER < 0x30000000L
#error "OpenSSL 3 or newer is needed"
#endif

#define NAME_MAX_DNS 253  /* bytes of a host's name (RFC 1035) */
#define KEEP_BYTES 65536u /* a buffer that has grown beyond is given back once it is empty */

struct hf__tls_context {
    const hf_allocator *allocator;
    SSL_CTX *ctx;
    BIO_METHOD *method;
    char *servername; /* NULL: the host's */
    bool insecure;
    bool has_ca;
    bool has_system;
    bool has_cert;
};

/* Bytes on their way between OpenSSL and the wire. */
typedef struct wire {
    hf__buffer bytes;
    size_t done; /* so many of them have gone */
} wire;

struct hf__tls {
    hf__tls_context *context;
    SSL *ssl;
    wire in;
    wire out;
    char host[NAME_MAX_DNS + 1]; /* for messages: as it was given */
    bool shaken;                 /* the handshake is complete; SSL forgets it after an error */
    bool nameless;               /* there is nothing to verify the certificate against */
    bool asked;                  /* the server wants a certificate of ours, and we have none */
    hf__tls_verdict verdict;
};

/* ---------------------------------------------------------------- wires */

static size_t left(const wire *w) {
    return w->bytes.len - w->done;
}

static void wire_init(wire *w, const hf_allocator *allocator) {
    hf__buffer_init(&w->bytes, allocator);
    w->done = 0;
}

static bool wire_put(wire *w, const char *data, size_t len) {
    /* Bytes that have gone make room first: a wire that is never quite empty stays small. */
    if (w->done > 0 && w->done >= left(w)) {
        memmove(w->bytes.data, w->bytes.data + w->done, left(w));
        w->bytes.len -= w->done;
        w->done = 0;
    }
    hf__buffer_put(&w->bytes, data, len);
    return !w->bytes.failed;
}

static void wire_gone(wire *w, size_t len) {
    assert(len <= left(w));
    w->done += len;
    if (left(w) > 0) return;
    w->done = w->bytes.len = 0;
    if (w->bytes.cap <= KEEP_BYTES) return;
    hf__buffer_fini(&w->bytes);
}

static int bio_write(BIO *bio, const char *data, int len) {
    wire *w = BIO_get_data(bio);

    BIO_clear_retry_flags(bio);
    if (len <= 0) return 0;
    return wire_put(w, data, (size_t)len) ? len : -1;
}

static int bio_read(BIO *bio, char *data, int len) {
    wire *w = BIO_get_data(bio);
    size_t n = left(w);

    BIO_clear_retry_flags(bio);
    if (len <= 0) return 0;
    if (n == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    if (n > (size_t)len) n = (size_t)len;
    memcpy(data, w->bytes.data + w->done, n);
    wire_gone(w, n);
    return (int)n;
}

static long bio_ctrl(BIO *bio, int command, long number, void *data) {
    (void)bio;
    (void)number;
    (void)data;
    return command == BIO_CTRL_FLUSH ? 1 : 0;
}

static BIO *bio_new(const hf__tls_context *context, wire *w) {
    BIO *bio = BIO_new(context->method);

    if (bio == NULL) return NULL;
    BIO_set_data(bio, w);
    BIO_set_init(bio, 1);
    return bio;
}

/* ---------------------------------------------------------------- context */

void hf__tls_begin(void) {
    /* Not the machine's openssl.cnf: what it names is for other programs. And nothing may be freed
     * at exit, when a keeper may still be at work. */
    (void)OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_ATEXIT, NULL);
}

static int on_verified(int ok, X509_STORE_CTX *store) {
    if (ok == 0) {
        const SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
        hf__tls *tls = SSL_get_app_data(ssl);
        hf__tls_judge(&tls->verdict, store);
    }
    return ok;
}

/* The server asks for a certificate, and none was given to us. */
static int on_cert_wanted(SSL *ssl, X509 **cert, EVP_PKEY **key) {
    hf__tls *tls = SSL_get_app_data(ssl);

    (void)cert;
    (void)key;
    tls->asked = true;
    return 0;
}

static hf_code set_up(hf__tls_context *context, const hf__tls_options *options, hf_error *error) {
    SSL_CTX *ctx = context->ctx;

    (void)SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_client_cert_cb(ctx, on_cert_wanted);
    if (options->insecure)
        SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, NULL);
    else
        SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, on_verified);
    if (context->has_ca) {
        if (hf__tls_trust(ctx, options->ca, error) != HF_OK) return error->code;
    } else if (options->roots.len > 0) {
        /* Whatever of them can be read: nobody has chosen these. */
        context->has_system = true;
        (void)hf__tls_trust(ctx, options->roots, error);
        hf__error_clear(error);
    } else if (!options->insecure) {
        context->has_system = hf__tls_trust_system(ctx);
    }
    if (options->cert.len == 0 && options->key.len == 0) return HF_OK;
    context->has_cert = true;
    return hf__tls_identify(ctx, options->cert, options->key, error);
}

static bool is_name(hf_slice name) {
    return name.len <= NAME_MAX_DNS && memchr(name.data, 0, name.len) == NULL;
}

static bool make_parts(hf__tls_context *context, const hf__tls_options *options) {
    context->ctx = SSL_CTX_new(TLS_client_method());
    context->method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "holdfast");
    if (options->servername.len > 0) {
        context->servername = hf__copy(context->allocator, options->servername);
        if (context->servername == NULL) return false;
    }
    return context->ctx != NULL && context->method != NULL &&
           BIO_meth_set_write(context->method, bio_write) == 1 &&
           BIO_meth_set_read(context->method, bio_read) == 1 &&
           BIO_meth_set_ctrl(context->method, bio_ctrl) == 1;
}

hf_code hf__tls_context_new(const hf__tls_options *options, const hf_allocator *allocator,
                            hf__tls_context **out, hf_error *error) {
    hf__tls_context *context = hf__zalloc(allocator, sizeof *context);

    hf__error_clear(error);
    hf__tls_begin();
    if (context == NULL) return hf__error_set(error, HF_ENOMEM, HF_RETRYABLE, NULL);
    context->allocator = allocator;
    context->insecure = options->insecure;
    context->has_ca = options->ca.len > 0;
    if (!make_parts(context, options))
        hf__error_set(error, HF_ENOMEM, HF_RETRYABLE, NULL);
    else if (context->servername != NULL && !is_name(options->servername))
        hf__error_set(error, HF_EINVAL, 0, "tlsServername is no host name");
    else
        set_up(context, options, error);
    if (error->code == HF_OK) {
        *out = context;
    } else {
        hf__tls_context_free(context);
    }
    ERR_clear_error();
    return error->code;
}

void hf__tls_context_free(hf__tls_context *context) {
    if (context == NULL) return;
    SSL_CTX_free(context->ctx);
    BIO_meth_free(context->method);
    hf__free(context->allocator, context->servername);
    hf__free(context->allocator, context);
}

/* ---------------------------------------------------------------- one connection */

/* What certificates call it: without the zone of an IPv6 address, or the dot behind a full name. */
static void clean_name(const char *given, char *name, size_t size) {
    size_t len = strcspn(given, "%");

    if (len > 0 && given[len] == '\0' && given[len - 1] == '.') len--;
    if (len >= size) len = 0;
    memcpy(name, given, len);
    name[len] = '\0';
}

/* Whom the certificate must name, and whom we ask for. */
static bool expect(hf__tls *tls, const char *given) {
    X509_VERIFY_PARAM *param = SSL_get0_param(tls->ssl);
    char name[NAME_MAX_DNS + 1];

    clean_name(given, name, sizeof name);
    if (name[0] == '\0') {
        tls->nameless = !tls->context->insecure;
        return true;
    }
    if (X509_VERIFY_PARAM_set1_ip_asc(param, name) == 1) return true; /* SNI is for names only */
    ERR_clear_error();
    SSL_set_hostflags(tls->ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set1_host(tls->ssl, name) == 1 && SSL_set_tlsext_host_name(tls->ssl, name) == 1;
}

hf__tls *hf__tls_new(hf__tls_context *context, const char *host) {
    hf__tls *tls = hf__zalloc(context->allocator, sizeof *tls);
    BIO *in;
    BIO *out;

    if (tls == NULL) return NULL;
    tls->context = context;
    wire_init(&tls->in, context->allocator);
    wire_init(&tls->out, context->allocator);
    memccpy(tls->host, host, '\0', sizeof tls->host - 1);
    ERR_clear_error();
    tls->ssl = SSL_new(context->ctx);
    in = bio_new(context, &tls->in);
    out = bio_new(context, &tls->out);
    if (tls->ssl == NULL || in == NULL || out == NULL) {
        BIO_free(in);
        BIO_free(out);
        hf__tls_free(tls);
        return NULL;
    }
    SSL_set0_rbio(tls->ssl, in);
    SSL_set0_wbio(tls->ssl, out);
    SSL_set_connect_state(tls->ssl);
    if (SSL_set_app_data(tls->ssl, tls) == 1 &&
        expect(tls, context->servername != NULL ? context->servername : host))
        return tls;
    hf__tls_free(tls);
    return NULL;
}

void hf__tls_free(hf__tls *tls) {
    if (tls == NULL) return;
    SSL_free(tls->ssl);
    hf__buffer_fini(&tls->in.bytes);
    hf__buffer_fini(&tls->out.bytes);
    hf__free(tls->context->allocator, tls);
}

/* ---------------------------------------------------------------- what went wrong */

/* What a server says to a certificate of ours that it does not like, or to none. */
static bool is_about_our_cert(const hf__tls *tls, int alert) {
    switch (alert) {
    case SSL3_AD_NO_CERTIFICATE:
    case SSL3_AD_BAD_CERTIFICATE:
    case SSL3_AD_UNSUPPORTED_CERTIFICATE:
    case SSL3_AD_CERTIFICATE_REVOKED:
    case SSL3_AD_CERTIFICATE_EXPIRED:
    case SSL3_AD_CERTIFICATE_UNKNOWN:
    case TLS1_AD_UNKNOWN_CA:
    case TLS1_AD_ACCESS_DENIED:
    case TLS1_AD_DECRYPT_ERROR:
    case TLS13_AD_CERTIFICATE_REQUIRED: return tls->asked || tls->context->has_cert;
    /* TLS 1.2 has no word of its own for a certificate that is missing. */
    case SSL3_AD_HANDSHAKE_FAILURE: return tls->asked;
    default: return false;
    }
}

static void explain_alert(const hf__tls *tls, int alert, hf_error *error) {
    const char *text = SSL_alert_desc_string_long(alert);

    if (is_about_our_cert(tls, alert)) {
        if (tls->asked)
            hf__error_set(error, HF_EACCES, 0,
                          "\"%.64s\" asks for a certificate of the client, which it has not got: "
                          "pass tls.cert and tls.key",
                          tls->host);
        else
            hf__error_set(error, HF_EACCES, 0,
                          "\"%.64s\" refused the certificate of tls.cert: it said \"%s\"",
                          tls->host, text);
    } else if (alert == TLS1_AD_PROTOCOL_VERSION) {
        hf__error_set(error, HF_EACCES, 0, "\"%.64s\" has no version of TLS from 1.2 on",
                      tls->host);
    } else if (alert == SSL3_AD_HANDSHAKE_FAILURE || alert == TLS1_AD_INSUFFICIENT_SECURITY ||
               alert == TLS1_AD_UNRECOGNIZED_NAME) {
        hf__error_set(error, HF_EACCES, 0,
                      "\"%.64s\" refused the TLS handshake: it said \"%s\" (is there a cipher that "
                      "both sides have, and is that its name?)",
                      tls->host, text);
    } else {
        hf__error_set(error, HF_EUNAVAIL, HF_RETRYABLE,
                      "\"%.64s\" ended the TLS connection: it said \"%s\"", tls->host, text);
    }
}

static void explain_protocol(const hf__tls *tls, int reason, hf_error *error) {
    const char *text = ERR_reason_error_string(ERR_peek_error());

    if (text == NULL) text = "no reason given";
    if (reason == SSL_R_UNSUPPORTED_PROTOCOL)
        hf__error_set(error, HF_EACCES, 0, "\"%.64s\" has no version of TLS from 1.2 on",
                      tls->host);
    else if (!tls->shaken)
        hf__error_set(error, HF_EPROTO, 0,
                      "\"%.64s\" answered the TLS handshake with something else: is this its port "
                      "for TLS? (%s)",
                      tls->host, text);
    else
        hf__error_set(error, HF_EPROTO, HF_RETRYABLE, "\"%.64s\" sent what is no TLS: %s",
                      tls->host, text);
}

static bool is_out_of_memory(const hf__tls *tls) {
    return tls->in.bytes.failed || tls->out.bytes.failed ||
           ERR_GET_REASON(ERR_peek_last_error()) == ERR_R_MALLOC_FAILURE;
}

/* After a call of OpenSSL that returned `rc`. False: it only wants more bytes. */
static bool has_failed(hf__tls *tls, int rc, hf_error *error) {
    const hf__tls_context *context = tls->context;
    int kind = SSL_get_error(tls->ssl, rc);
    int reason = ERR_GET_REASON(ERR_peek_error());

    hf__error_clear(error);
    if (kind == SSL_ERROR_WANT_READ) return false;
    if (is_out_of_memory(tls))
        hf__error_set(error, HF_ENOMEM, HF_RETRYABLE, NULL);
    else if (kind == SSL_ERROR_ZERO_RETURN)
        hf__error_set(error, HF_EUNAVAIL, HF_RETRYABLE, "\"%.64s\" has closed the connection",
                      tls->host);
    else if (tls->verdict.code != 0)
        hf__tls_explain(&tls->verdict,
                        context->servername != NULL ? context->servername : tls->host,
                        context->has_ca, context->has_system, error);
    else if (reason >= SSL_AD_REASON_OFFSET && reason < SSL_AD_REASON_OFFSET + 256)
        explain_alert(tls, reason - SSL_AD_REASON_OFFSET, error);
    else
        explain_protocol(tls, reason, error);
    ERR_clear_error();
    return true;
}

/* ---------------------------------------------------------------- bytes */

bool hf__tls_handshake(hf__tls *tls, hf_error *error) {
    int rc;

    hf__error_clear(error);
    if (tls->nameless) {
        hf__error_set(error, HF_EACCES, 0,
                      "there is no name that the server's certificate must be for: set "
                      "tls.servername");
        return false;
    }
    ERR_clear_error();
    rc = SSL_do_handshake(tls->ssl);
    if (rc == 1) {
        tls->shaken = true;
        return true;
    }
    (void)has_failed(tls, rc, error);
    return false;
}

bool hf__tls_receive(hf__tls *tls, const char *data, size_t len) {
    return wire_put(&tls->in, data, len);
}

int hf__tls_read(hf__tls *tls, char *data, size_t size, hf_error *error) {
    int rc;

    assert(tls->shaken);
    ERR_clear_error();
    rc = SSL_read(tls->ssl, data, size > INT_MAX ? INT_MAX : (int)size);
    if (rc > 0) return rc;
    return has_failed(tls, rc, error) ? -1 : 0;
}

bool hf__tls_write(hf__tls *tls, const char *data, size_t len, hf_error *error) {
    assert(tls->shaken);
    while (len > 0) {
        int n = len > INT_MAX ? INT_MAX : (int)len;
        int rc;

        ERR_clear_error();
        rc = SSL_write(tls->ssl, data, n);
        if (rc <= 0) {
            /* Nothing here waits for the other side: renegotiation is off. */
            if (!has_failed(tls, rc, error))
                hf__error_set(error, HF_EPROTO, HF_RETRYABLE,
                              "\"%.64s\" began the TLS handshake anew", tls->host);
            return false;
        }
        data += rc;
        len -= (size_t)rc;
    }
    hf__error_clear(error);
    return true;
}

hf_slice hf__tls_output(hf__tls *tls) {
    if (left(&tls->out) == 0) return (hf_slice){NULL, 0};
    return (hf_slice){tls->out.bytes.data + tls->out.done, left(&tls->out)};
}

void hf__tls_sent(hf__tls *tls, size_t len) {
    wire_gone(&tls->out, len);
}
