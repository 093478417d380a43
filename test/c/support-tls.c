#include "support-tls.h"

#include "harness.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

char *bio_text(BIO *bio) {
    char *data;
    long len = BIO_get_mem_data(bio, &data);
    char *text = malloc((size_t)len + 1);
    if (text == NULL) abort();
    memcpy(text, data, (size_t)len);
    text[len] = '\0';
    BIO_free(bio);
    return text;
}

static void extend(X509 *cert, const X509 *issuer, int kind, const char *value) {
    X509V3_CTX ctx;
    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, (X509 *)(uintptr_t)issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &ctx, kind, value);
    REQUIRE(extension != NULL);
    X509_add_ext(cert, extension, -1);
    X509_EXTENSION_free(extension);
}

void identity_make(identity *id, const identity_options *o) {
    static long serial = 1;
    long from = o->from_s == 0 && o->until_s == 0 ? -3600 : o->from_s;
    long until = o->from_s == 0 && o->until_s == 0 ? 3600 : o->until_s;
    id->key = EVP_EC_gen("P-256");
    id->cert = X509_new();
    REQUIRE(id->key != NULL && id->cert != NULL);
    X509_set_version(id->cert, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(id->cert), serial++);
    X509_gmtime_adj(X509_getm_notBefore(id->cert), from);
    X509_gmtime_adj(X509_getm_notAfter(id->cert), until);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(id->cert), "CN", MBSTRING_ASC,
                               (const unsigned char *)o->name, -1, -1, 0);
    const identity *issuer = o->issuer != NULL ? o->issuer : id;
    X509_set_issuer_name(id->cert, X509_get_subject_name(issuer->cert));
    X509_set_pubkey(id->cert, id->key);
    extend(id->cert, issuer->cert, NID_basic_constraints,
           o->authority ? "critical,CA:TRUE" : "critical,CA:FALSE");
    if (o->alt != NULL) extend(id->cert, issuer->cert, NID_subject_alt_name, o->alt);
    REQUIRE(X509_sign(id->cert, issuer->key, EVP_sha256()) > 0);
    BIO *cert = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(cert, id->cert);
    id->cert_pem = bio_text(cert);
    BIO *key = BIO_new(BIO_s_mem());
    PEM_write_bio_PrivateKey(key, id->key, NULL, NULL, 0, NULL, NULL);
    id->key_pem = bio_text(key);
}

void identity_free(identity *id) {
    X509_free(id->cert);
    EVP_PKEY_free(id->key);
    free(id->cert_pem);
    free(id->key_pem);
}

void tls_server_open(tls_server *s, const identity *id, const identity *wanted) {
    memset(s, 0, sizeof(*s));
    s->ctx = SSL_CTX_new(TLS_server_method());
    REQUIRE(s->ctx != NULL);
    REQUIRE(SSL_CTX_use_certificate(s->ctx, id->cert) == 1);
    REQUIRE(SSL_CTX_use_PrivateKey(s->ctx, id->key) == 1);
    if (wanted == NULL) return;
    X509_STORE_add_cert(SSL_CTX_get_cert_store(s->ctx), wanted->cert);
    SSL_CTX_set_verify(s->ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
}

void tls_server_accept(tls_server *s) {
    s->ssl = SSL_new(s->ctx);
    s->in = BIO_new(BIO_s_mem());
    s->out = BIO_new(BIO_s_mem());
    REQUIRE(s->ssl != NULL && s->in != NULL && s->out != NULL);
    SSL_set_bio(s->ssl, s->in, s->out);
    SSL_set_accept_state(s->ssl);
}

void tls_server_close(tls_server *s) {
    SSL_free(s->ssl);
    SSL_CTX_free(s->ctx);
}

bool tls_server_shake(tls_server *s) {
    if (s->shaken) return true;
    int rc = SSL_do_handshake(s->ssl);
    s->shaken = rc == 1;
    return s->shaken || SSL_get_error(s->ssl, rc) == SSL_ERROR_WANT_READ;
}
