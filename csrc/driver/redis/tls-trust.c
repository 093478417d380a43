/*
 * Certificates and keys that a client has, and the authorities that it trusts.
 */
#include "driver/redis/tls-parts.h"

#include <ctype.h>
#include <dirent.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Where the distributions keep them: by the hash of the name, and all in one file. */
static const char *const folders[] = {"/etc/ssl/certs", "/etc/pki/tls/certs"};
static const char *const bundles[] = {
    "/etc/ssl/certs/ca-certificates.crt",                /* Debian, Alpine, Arch */
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", /* Fedora */
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem", /* SUSE */
    "/etc/ssl/cert.pem",
};

/* Fills in what the last call of OpenSSL had to say about the setting `name`. */
static hf_code refuse(hf_error *error, const char *name, const char *what) {
    unsigned long last = ERR_peek_last_error();
    const char *reason = ERR_reason_error_string(last);

    if (ERR_GET_REASON(last) == ERR_R_MALLOC_FAILURE)
        hf__error_set(error, HF_ENOMEM, HF_RETRYABLE, NULL);
    else
        hf__error_set(error, HF_EINVAL, 0, "%s %s: %s", name, what,
                      reason != NULL ? reason : "unknown format");
    ERR_clear_error();
    return error->code;
}

/* A key with a passphrase is refused; OpenSSL would ask the terminal for it. */
static int no_passphrase(char *text, int size, int writing, void *data) {
    bool *asked = data;

    (void)text;
    (void)size;
    (void)writing;
    if (asked != NULL) *asked = true;
    return -1;
}

static BIO *read_from(hf_slice pem, const char *name, hf_error *error) {
    BIO *bio = pem.len <= INT_MAX ? BIO_new_mem_buf(pem.data, (int)pem.len) : NULL;

    ERR_clear_error();
    if (bio != NULL) return bio;
    if (pem.len <= INT_MAX)
        hf__error_set(error, HF_ENOMEM, HF_RETRYABLE, NULL);
    else
        hf__error_set(error, HF_EINVAL, 0, "%s is too long", name);
    return NULL;
}

/* Whether the last read found the end of the text, and no more than that. */
static bool at_end(void) {
    unsigned long last = ERR_peek_last_error();

    return ERR_GET_LIB(last) == ERR_LIB_PEM && ERR_GET_REASON(last) == PEM_R_NO_START_LINE;
}

/* ---------------------------------------------------------------- authorities */

hf_code hf__tls_trust(SSL_CTX *ctx, hf_slice pem, hf_error *error) {
    X509_STORE *store = SSL_CTX_get_cert_store(ctx);
    BIO *bio = read_from(pem, "tlsCa", error);
    X509 *cert;
    size_t n = 0;
    bool added = true;

    if (bio == NULL) return error->code;
    while (added && (cert = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL)) != NULL) {
        added = X509_STORE_add_cert(store, cert) == 1;
        X509_free(cert);
        n++;
    }
    BIO_free(bio);
    if (!added) return refuse(error, "tlsCa", "has a certificate that cannot be used");
    if (!at_end()) return refuse(error, "tlsCa", "has a certificate that cannot be read");
    ERR_clear_error();
    if (n > 0) return HF_OK;
    return hf__error_set(error, HF_EINVAL, 0, "tlsCa has no certificate in PEM");
}

/* "5ed36f99.0": the hash of a name, and a number. */
static bool is_hashed(const char *name) {
    size_t n = 0;

    while (n < 8 && isxdigit((unsigned char)name[n]))
        n++;
    return n == 8 && name[8] == '.' && isdigit((unsigned char)name[9]);
}

static bool has_hashed(const char *folder) {
    DIR *dir = opendir(folder);
    bool found = false;

    if (dir == NULL) return false;
    for (struct dirent *each; !found && (each = readdir(dir)) != NULL;)
        found = is_hashed(each->d_name);
    closedir(dir);
    return found;
}

/* By their hash only those are read that are needed, when they are. To read a bundle takes 25 ms
 * of a loop's time, so it is what is left. */
static bool trust_known_places(X509_STORE *store) {
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        if (has_hashed(folders[i]) && X509_STORE_load_path(store, folders[i]) == 1) return true;
    }
    for (size_t i = 0; i < sizeof bundles / sizeof bundles[0]; i++) {
        if (access(bundles[i], R_OK) == 0 && X509_STORE_load_file(store, bundles[i]) == 1)
            return true;
    }
    return false;
}

static const char *named(const char *variable) {
    const char *path = secure_getenv(variable);

    return path != NULL && path[0] != '\0' ? path : NULL;
}

bool hf__tls_trust_system(SSL_CTX *ctx) {
    X509_STORE *store = SSL_CTX_get_cert_store(ctx);
    const char *file = named("SSL_CERT_FILE");
    const char *folder = named("SSL_CERT_DIR");
    bool found = false;

    if (file != NULL && X509_STORE_load_file(store, file) == 1) found = true;
    if (folder != NULL && X509_STORE_load_path(store, folder) == 1) found = true;
    if (file == NULL && folder == NULL) found = trust_known_places(store);
    ERR_clear_error();
    return found;
}

/* ---------------------------------------------------------------- who we are */

static hf_code add_chain(SSL_CTX *ctx, BIO *bio, hf_error *error) {
    X509 *cert;

    while ((cert = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL)) != NULL) {
        if (SSL_CTX_add0_chain_cert(ctx, cert) == 1) continue;
        X509_free(cert);
        return refuse(error, "tlsCert", "has a chain that cannot be used");
    }
    if (!at_end()) return refuse(error, "tlsCert", "has a chain that cannot be read");
    ERR_clear_error();
    return HF_OK;
}

static hf_code use_cert(SSL_CTX *ctx, hf_slice pem, hf_error *error) {
    BIO *bio = read_from(pem, "tlsCert", error);
    X509 *cert;
    hf_code code;

    if (bio == NULL) return error->code;
    cert = PEM_read_bio_X509_AUX(bio, NULL, no_passphrase, NULL);
    if (cert == NULL)
        code = refuse(error, "tlsCert", "has no certificate that can be read");
    else if (SSL_CTX_use_certificate(ctx, cert) != 1)
        code = refuse(error, "tlsCert", "cannot be used");
    else
        code = add_chain(ctx, bio, error);
    X509_free(cert);
    BIO_free(bio);
    return code;
}

static hf_code use_key(SSL_CTX *ctx, hf_slice pem, hf_error *error) {
    bool asked = false;
    BIO *bio = read_from(pem, "tlsKey", error);
    EVP_PKEY *key;
    hf_code code = HF_OK;

    if (bio == NULL) return error->code;
    key = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, &asked);
    BIO_free(bio);
    if (key == NULL && asked) {
        ERR_clear_error();
        return hf__error_set(error, HF_EINVAL, 0,
                             "tlsKey has a passphrase: take it off with \"openssl pkey\"");
    }
    if (key == NULL) return refuse(error, "tlsKey", "is no key that can be read");
    if (SSL_CTX_use_PrivateKey(ctx, key) != 1)
        code = refuse(error, "tlsKey", "does not belong to tlsCert");
    EVP_PKEY_free(key);
    return code;
}

hf_code hf__tls_identify(SSL_CTX *ctx, hf_slice cert, hf_slice key, hf_error *error) {
    if (key.len == 0) return hf__error_set(error, HF_EINVAL, 0, "tlsCert needs tlsKey");
    if (cert.len == 0) return hf__error_set(error, HF_EINVAL, 0, "tlsKey needs tlsCert");
    if (use_cert(ctx, cert, error) != HF_OK) return error->code;
    return use_key(ctx, key, error);
}
