/*
 * Why a certificate is not trusted, in a sentence that says what to do. What a certificate says of
 * itself comes from a stranger: it is bounded, and shown as plain ASCII.
 */
#include "driver/redis/tls-parts.h"

#include <arpa/inet.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

#define NAMES_MAX 3 /* of a certificate that are told */

/* Adds `data` to the text of `size` bytes, cut where it is full. */
static void add(char *text, size_t size, const void *data, size_t len) {
    const unsigned char *bytes = data;
    size_t at = strlen(text);

    for (size_t i = 0; i < len && at + 1 < size; i++)
        text[at++] = bytes[i] >= 0x20 && bytes[i] < 0x7f ? (char)bytes[i] : '?';
    text[at] = '\0';
}

/* The name that people know, or what else it has of one. */
static void show_name(const X509_NAME *name, char *text, size_t size) {
    static const int kinds[] = {NID_commonName, NID_organizationalUnitName, NID_organizationName};

    text[0] = '\0';
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        int at = X509_NAME_get_index_by_NID(name, kinds[i], -1);
        if (at < 0) continue;
        const ASN1_STRING *value = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at));
        add(text, size, ASN1_STRING_get0_data(value), (size_t)ASN1_STRING_length(value));
        return;
    }
    add(text, size, "without a name", 14);
}

static void show_time(const ASN1_TIME *time, char *text, size_t size) {
    struct tm tm;

    text[0] = '\0';
    if (time == NULL || ASN1_TIME_to_tm(time, &tm) != 1) return;
    if (strftime(text, size, "%Y-%m-%d %H:%M UTC", &tm) == 0) text[0] = '\0';
}

/* One name that a certificate is for; false if it is of another kind. */
static bool add_general_name(const GENERAL_NAME *name, char *text, size_t size) {
    char address[INET6_ADDRSTRLEN];
    const ASN1_STRING *value;
    int len;

    if (name->type == GEN_DNS) {
        value = name->d.dNSName;
        add(text, size, ASN1_STRING_get0_data(value), (size_t)ASN1_STRING_length(value));
        return true;
    }
    if (name->type != GEN_IPADD) return false;
    value = name->d.iPAddress;
    len = ASN1_STRING_length(value);
    if (len != 4 && len != 16) return false;
    if (inet_ntop(len == 4 ? AF_INET : AF_INET6, ASN1_STRING_get0_data(value), address,
                  sizeof address) == NULL)
        return false;
    add(text, size, address, strlen(address));
    return true;
}

static void show_names(X509 *cert, char *text, size_t size) {
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    int n = names == NULL ? 0 : sk_GENERAL_NAME_num(names);
    int shown = 0;

    text[0] = '\0';
    for (int i = 0; i < n && shown < NAMES_MAX; i++) {
        char one[HF__TLS_TEXT_MAX] = "";
        if (!add_general_name(sk_GENERAL_NAME_value(names, i), one, sizeof one)) continue;
        if (shown++ > 0) add(text, size, ", ", 2);
        add(text, size, one, strlen(one));
    }
    if (n > shown && shown == NAMES_MAX) add(text, size, ", ...", 5);
    if (shown == 0) show_name(X509_get_subject_name(cert), text, size);
    GENERAL_NAMES_free(names);
}

static bool is_unknown(int code) {
    return code == X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT ||
           code == X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY ||
           code == X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE ||
           code == X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN || code == X509_V_ERR_CERT_UNTRUSTED;
}

void hf__tls_judge(hf__tls_verdict *verdict, X509_STORE_CTX *store) {
    X509 *cert = X509_STORE_CTX_get_current_cert(store);
    int code = X509_STORE_CTX_get_error(store);

    memset(verdict, 0, sizeof *verdict);
    verdict->code = code;
    verdict->depth = X509_STORE_CTX_get_error_depth(store);
    if (cert == NULL) return;
    if (code == X509_V_ERR_CERT_NOT_YET_VALID)
        show_time(X509_get0_notBefore(cert), verdict->when, sizeof verdict->when);
    else if (code == X509_V_ERR_CERT_HAS_EXPIRED)
        show_time(X509_get0_notAfter(cert), verdict->when, sizeof verdict->when);
    show_name(is_unknown(code) ? X509_get_issuer_name(cert) : X509_get_subject_name(cert),
              verdict->name, sizeof verdict->name);
    if (verdict->depth == 0) show_names(cert, verdict->names, sizeof verdict->names);
}

/* "the certificate of "host"", or of an authority above it. */
static void show_whose(const hf__tls_verdict *v, const char *host, char *text, size_t size) {
    if (v->depth == 0)
        snprintf(text, size, "the certificate of \"%.64s\"", host);
    else
        snprintf(text, size, "the certificate of \"%.64s\" rests on \"%.32s\", whose own", host,
                 v->name);
}

void hf__tls_explain(const hf__tls_verdict *v, const char *host, bool ca, bool system,
                     hf_error *error) {
    char whose[160];

    show_whose(v, host, whose, sizeof whose);
    if (v->code == X509_V_ERR_OUT_OF_MEM)
        hf__error_set(error, HF_ENOMEM, HF_RETRYABLE, NULL);
    else if (v->code == X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT)
        hf__error_set(error, HF_EACCES, 0,
                      "%s is self-signed, and not trusted: if it is the right one, pass it as "
                      "tls.ca",
                      whose);
    else if (is_unknown(v->code) && !ca && !system)
        hf__error_set(error, HF_EACCES, 0,
                      "%s is not trusted, since this machine has no certificates of authorities: "
                      "install ca-certificates, or pass tls.ca",
                      whose);
    else if (is_unknown(v->code))
        hf__error_set(error, HF_EACCES, 0,
                      "the certificate of \"%.64s\" is signed by \"%.40s\", %s", host, v->name,
                      ca ? "which is not among those of tls.ca"
                         : "an authority that is not trusted here: pass its certificate as tls.ca");
    else if (v->code == X509_V_ERR_CERT_HAS_EXPIRED)
        hf__error_set(error, HF_EACCES, 0, "%s expired on %s: it must be renewed", whose, v->when);
    else if (v->code == X509_V_ERR_CERT_NOT_YET_VALID)
        hf__error_set(error, HF_EACCES, 0,
                      "%s is not valid before %s: is the clock of this machine right?", whose,
                      v->when);
    else if (v->code == X509_V_ERR_HOSTNAME_MISMATCH || v->code == X509_V_ERR_IP_ADDRESS_MISMATCH)
        hf__error_set(error, HF_EACCES, 0,
                      "the certificate is not for \"%.64s\" but for %s: connect by that name, or "
                      "set tls.servername",
                      host, v->names);
    else
        hf__error_set(error, HF_EACCES, 0, "%s is not accepted: %s", whose,
                      X509_verify_cert_error_string(v->code));
}
