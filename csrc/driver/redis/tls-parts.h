/*
 * Inside of TLS: what its files have of each other. None of them but these include OpenSSL.
 */
#ifndef HF_DRIVER_REDIS_TLS_PARTS_H
#define HF_DRIVER_REDIS_TLS_PARTS_H

#include "core/error.h"

struct ssl_ctx_st;
struct x509_store_ctx_st;

/* To be called before anything else of OpenSSL, any number of times, on any thread. */
void hf__tls_begin(void);

/* ---- whom to trust (tls-trust.c) */

/* Trusts the authorities in `pem`; HF_EINVAL, HF_ENOMEM. */
hf_code hf__tls_trust(struct ssl_ctx_st *ctx, hf_slice pem, hf_error *error);
/* Trusts the authorities of the system: SSL_CERT_FILE and SSL_CERT_DIR where one of them is set,
 * else where Linux distributions keep them. False: there are none. */
bool hf__tls_trust_system(struct ssl_ctx_st *ctx);
/* Shows the certificate `cert` with its chain, and has its key; HF_EINVAL, HF_ENOMEM. */
hf_code hf__tls_identify(struct ssl_ctx_st *ctx, hf_slice cert, hf_slice key, hf_error *error);

/* ---- why a certificate is not trusted (tls-verdict.c) */

#define HF__TLS_TEXT_MAX 96

typedef struct hf__tls_verdict {
    int code;                     /* X509_V_ERR_*; 0: nothing was wrong with it */
    int depth;                    /* 0: the server's own; else an authority's */
    char name[HF__TLS_TEXT_MAX];  /* of an authority: its own; unknown: the one that is missing */
    char names[HF__TLS_TEXT_MAX]; /* what the server's is for */
    char when[32];                /* until when, or from when on, it is valid */
} hf__tls_verdict;

/* Notes what OpenSSL has found wrong. */
void hf__tls_judge(hf__tls_verdict *verdict, struct x509_store_ctx_st *store);
/* As an error: HF_EACCES, or HF_ENOMEM. `ca`: the user has named the authorities to trust, else
 * `system` says whether this machine has any. */
void hf__tls_explain(const hf__tls_verdict *verdict, const char *host, bool ca, bool system,
                     hf_error *error);

#endif
