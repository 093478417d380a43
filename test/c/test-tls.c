/* TLS against a server in the same process: who is let in, who is not, and what is said then. */
#include "harness.h"
#include "support-tls.h"

#include "driver/redis/tls-digest.h"
#include "driver/redis/tls.h"
#include "util/alloc.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HOST "redis.test"

static hf_slice slice(const char *text) {
    return (hf_slice){text, strlen(text)};
}

/* ---------------------------------------------------------------- both ends */

/* A client, a server and the wire between them. */
typedef struct pair {
    hf__tls_context *context;
    hf__tls *client;
    tls_server server;
    size_t chunk; /* bytes that travel at once; 0: all there are */
    hf_error error;
    bool shaken; /* the client's handshake is complete */
} pair;

static bool contains(const char *text, const char *part) {
    return strstr(text, part) != NULL;
}

#define CHECK_ERROR(error, wanted, part)                                   \
    do {                                                                   \
        CHECK_INT((error).code, wanted);                                   \
        if (!contains((error).message, part)) FAIL("%s", (error).message); \
    } while (0)

static void pair_open(pair *p, const identity *server, const identity *wanted) {
    memset(p, 0, sizeof(*p));
    tls_server_open(&p->server, server, wanted);
}

static void pair_connect(pair *p, const hf__tls_options *options, const char *host) {
    hf_error error;
    tls_server_accept(&p->server);
    REQUIRE_INT(hf__tls_context_new(options, hf__allocator_libc(), &p->context, &error), HF_OK);
    p->client = hf__tls_new(p->context, host);
    REQUIRE(p->client != NULL);
}

static void pair_close(pair *p) {
    hf__tls_free(p->client);
    hf__tls_context_free(p->context);
    tls_server_close(&p->server);
    ERR_clear_error();
}

static size_t at_once(const pair *p, size_t n) {
    return p->chunk > 0 && n > p->chunk ? p->chunk : n;
}

/* Moves bytes one way each, at most a chunk. False: there were none. */
static bool move(pair *p) {
    char data[65536];
    hf_slice out = hf__tls_output(p->client);
    size_t n = at_once(p, out.len);
    if (n > 0) {
        BIO_write(p->server.in, out.data, (int)n);
        hf__tls_sent(p->client, n);
    }
    int got = BIO_read(p->server.out, data, (int)at_once(p, sizeof(data)));
    if (got > 0) CHECK(hf__tls_receive(p->client, data, (size_t)got));
    return n > 0 || got > 0;
}

/* Both shake hands until nothing moves any more. The client's error stays in p->error. */
static void shake(pair *p) {
    bool moved = true;
    while (moved) {
        if (!p->shaken && p->error.code == HF_OK)
            p->shaken = hf__tls_handshake(p->client, &p->error);
        moved = move(p);
        (void)tls_server_shake(&p->server);
    }
    ERR_clear_error();
}

/* What the client can read now. */
static int read_client(pair *p, char *data, size_t size) {
    while (move(p)) {
    }
    return hf__tls_read(p->client, data, size, &p->error);
}

static void says_hello_both_ways(pair *p) {
    char data[16] = "";
    REQUIRE(p->shaken && p->server.shaken);
    CHECK(hf__tls_write(p->client, "ping", 4, &p->error));
    while (move(p)) {
    }
    CHECK_INT(SSL_read(p->server.ssl, data, sizeof(data)), 4);
    CHECK_STR(data, "ping");
    CHECK_INT(SSL_write(p->server.ssl, "pong!", 5), 5);
    CHECK_INT(read_client(p, data, sizeof(data)), 5);
    CHECK_MEM(data, "pong!", 5);
    CHECK_INT(hf__tls_read(p->client, data, sizeof(data), &p->error), 0);
}

/* ---------------------------------------------------------------- a cast */

typedef struct cast {
    identity ca;
    identity other_ca;
    identity server;
    identity client;
    identity stranger; /* a client of the other authority */
} cast;

static void cast_open(cast *c) {
    identity_make(&c->ca, &(identity_options){.name = "Our CA", .authority = true});
    identity_make(&c->other_ca, &(identity_options){.name = "Other CA", .authority = true});
    identity_make(&c->server, &(identity_options){.name = HOST,
                                                  .alt = "DNS:redis.test, DNS:*.nodes.test, "
                                                         "IP:10.1.2.3, IP:fd00::7",
                                                  .issuer = &c->ca});
    identity_make(&c->client, &(identity_options){.name = "client", .issuer = &c->ca});
    identity_make(&c->stranger, &(identity_options){.name = "stranger", .issuer = &c->other_ca});
}

static void cast_close(cast *c) {
    identity_free(&c->ca);
    identity_free(&c->other_ca);
    identity_free(&c->server);
    identity_free(&c->client);
    identity_free(&c->stranger);
}

/* One handshake of `id` with a client that trusts our authority. */
static hf_error judge(const cast *c, const identity *id, const char *host) {
    pair p;
    pair_open(&p, id, NULL);
    pair_connect(&p, &(hf__tls_options){.ca = slice(c->ca.cert_pem)}, host);
    shake(&p);
    hf_error error = p.error;
    CHECK(p.shaken == (error.code == HF_OK));
    /* Who refuses has told the server so. */
    CHECK(p.server.shaken == p.shaken);
    pair_close(&p);
    return error;
}

/* ---------------------------------------------------------------- who is let in */

static void use_version(int version) {
    cast c;
    pair p;
    cast_open(&c);
    pair_open(&p, &c.server, NULL);
    SSL_CTX_set_max_proto_version(p.server.ctx, version);
    pair_connect(&p, &(hf__tls_options){.ca = slice(c.ca.cert_pem)}, HOST);
    shake(&p);
    CHECK_INT(SSL_version(p.server.ssl), version);
    CHECK_STR(SSL_get_servername(p.server.ssl, TLSEXT_NAMETYPE_host_name), HOST);
    says_hello_both_ways(&p);
    pair_close(&p);
    cast_close(&c);
}

TEST(a_server_that_is_right_is_spoken_to_in_tls_1_3) {
    use_version(TLS1_3_VERSION);
}

TEST(and_in_tls_1_2) {
    use_version(TLS1_2_VERSION);
}

TEST(names_and_addresses_of_the_certificate_are_accepted) {
    static const char *const hosts[] = {HOST,       "redis.test.", "REDIS.test",  "a.nodes.test",
                                        "10.1.2.3", "fd00::7",     "fd00:0:0::7", "fd00::7%eth0"};
    cast c;
    cast_open(&c);
    for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
        hf_error error = judge(&c, &c.server, hosts[i]);
        if (error.code != HF_OK) FAIL("%s: %s", hosts[i], error.message);
    }
    cast_close(&c);
}

TEST(an_address_is_not_asked_for_by_name) {
    cast c;
    pair p;
    cast_open(&c);
    pair_open(&p, &c.server, NULL);
    pair_connect(&p, &(hf__tls_options){.ca = slice(c.ca.cert_pem)}, "10.1.2.3");
    shake(&p);
    CHECK_NULL(SSL_get_servername(p.server.ssl, TLSEXT_NAMETYPE_host_name));
    says_hello_both_ways(&p);
    pair_close(&p);
    cast_close(&c);
}

TEST(servername_stands_for_the_host) {
    cast c;
    pair p;
    cast_open(&c);
    for (int i = 0; i < 2; i++) {
        hf__tls_options options = {.ca = slice(c.ca.cert_pem),
                                   .servername = slice(i == 0 ? HOST : "else.test")};
        pair_open(&p, &c.server, NULL);
        pair_connect(&p, &options, i == 0 ? "127.0.0.1" : HOST);
        shake(&p);
        CHECK_STR(SSL_get_servername(p.server.ssl, TLSEXT_NAMETYPE_host_name),
                  i == 0 ? HOST : "else.test");
        CHECK(p.shaken == (i == 0));
        if (i > 0) CHECK_ERROR(p.error, HF_EACCES, "not for \"else.test\" but for redis.test");
        pair_close(&p);
    }
    cast_close(&c);
}

TEST(one_of_several_authorities_is_enough) {
    cast c;
    pair p;
    char both[8192];
    cast_open(&c);
    snprintf(both, sizeof(both), "# a comment\n%s\n%s", c.other_ca.cert_pem, c.ca.cert_pem);
    pair_open(&p, &c.server, NULL);
    pair_connect(&p, &(hf__tls_options){.ca = slice(both)}, HOST);
    shake(&p);
    says_hello_both_ways(&p);
    pair_close(&p);
    cast_close(&c);
}

TEST(a_chain_over_an_intermediate_is_followed) {
    cast c;
    pair p;
    identity between, server;
    cast_open(&c);
    identity_make(&between,
                  &(identity_options){.name = "Between", .authority = true, .issuer = &c.ca});
    identity_make(&server,
                  &(identity_options){.name = "s", .alt = "DNS:" HOST, .issuer = &between});
    pair_open(&p, &server, NULL);
    SSL_CTX_add1_chain_cert(p.server.ctx, between.cert);
    pair_connect(&p, &(hf__tls_options){.ca = slice(c.ca.cert_pem)}, HOST);
    shake(&p);
    says_hello_both_ways(&p);
    pair_close(&p);
    hf_error error = judge(&c, &server, HOST); /* without it */
    CHECK_ERROR(error, HF_EACCES, "is signed by \"Between\", which is not among those of tls.ca");
    identity_free(&between);
    identity_free(&server);
    cast_close(&c);
}

TEST(a_self_signed_certificate_is_trusted_once_it_is_given) {
    cast c;
    pair p;
    identity alone;
    cast_open(&c);
    identity_make(&alone, &(identity_options){.name = HOST, .alt = "DNS:" HOST});
    hf_error error = judge(&c, &alone, HOST);
    CHECK_ERROR(error, HF_EACCES,
                "the certificate of \"redis.test\" is self-signed, and not trusted: if it is the "
                "right one, pass it as tls.ca");
    pair_open(&p, &alone, NULL);
    pair_connect(&p, &(hf__tls_options){.ca = slice(alone.cert_pem)}, HOST);
    shake(&p);
    says_hello_both_ways(&p);
    pair_close(&p);
    identity_free(&alone);
    cast_close(&c);
}

TEST(nothing_is_verified_where_that_is_turned_off) {
    cast c;
    pair p;
    identity old;
    cast_open(&c);
    identity_make(&old, &(identity_options){.name = "x", .from_s = -200, .until_s = -100});
    pair_open(&p, &old, NULL);
    pair_connect(&p, &(hf__tls_options){.insecure = true}, HOST);
    shake(&p);
    CHECK_STR(SSL_get_servername(p.server.ssl, TLSEXT_NAMETYPE_host_name), HOST);
    says_hello_both_ways(&p);
    /* What was wrong with the certificate is not what is wrong later. */
    SSL_shutdown(p.server.ssl);
    char data[8];
    CHECK_INT(read_client(&p, data, sizeof(data)), -1);
    CHECK_ERROR(p.error, HF_EUNAVAIL, "has closed the connection");
    pair_close(&p);
    identity_free(&old);
    cast_close(&c);
}

/* ---------------------------------------------------------------- who is not */

TEST(another_authority_is_not_trusted) {
    cast c;
    identity wrong;
    cast_open(&c);
    identity_make(&wrong,
                  &(identity_options){.name = HOST, .alt = "DNS:" HOST, .issuer = &c.other_ca});
    hf_error error = judge(&c, &wrong, HOST);
    CHECK_ERROR(error, HF_EACCES,
                "the certificate of \"redis.test\" is signed by \"Other CA\", which is not among "
                "those of tls.ca");
    identity_free(&wrong);
    cast_close(&c);
}

TEST(another_name_is_not_accepted) {
    static const char *const hosts[] = {"else.test",     "redis.test.evil", "a.b.nodes.test",
                                        "nodes.test",    "10.1.2.4",        "fd00::8",
                                        "*.nodes.test.x"};
    cast c;
    cast_open(&c);
    for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
        hf_error error = judge(&c, &c.server, hosts[i]);
        char wanted[200];
        snprintf(wanted, sizeof(wanted),
                 "the certificate is not for \"%s\" but for redis.test, *.nodes.test, 10.1.2.3, "
                 "...: connect by that name, or set tls.servername",
                 hosts[i]);
        CHECK_ERROR(error, HF_EACCES, wanted);
    }
    cast_close(&c);
}

TEST(an_address_in_the_common_name_is_no_address) {
    cast c;
    identity id;
    cast_open(&c);
    identity_make(&id, &(identity_options){.name = "10.9.9.9", .issuer = &c.ca});
    hf_error error = judge(&c, &id, "10.9.9.9");
    CHECK_ERROR(error, HF_EACCES, "not for \"10.9.9.9\" but for 10.9.9.9");
    identity_free(&id);
    cast_close(&c);
}

static hf_error judge_dates(const cast *c, long from_s, long until_s) {
    identity id;
    identity_make(&id, &(identity_options){.name = HOST,
                                           .alt = "DNS:" HOST,
                                           .issuer = &c->ca,
                                           .from_s = from_s,
                                           .until_s = until_s});
    hf_error error = judge(c, &id, HOST);
    identity_free(&id);
    return error;
}

TEST(a_certificate_has_its_time) {
    cast c;
    char wanted[200];
    struct tm tm;
    time_t then;
    cast_open(&c);
    hf_error error = judge_dates(&c, -7200, -3600);
    then = time(NULL) - 3600;
    strftime(wanted, sizeof(wanted), "the certificate of \"redis.test\" expired on %Y-%m-%d ",
             gmtime_r(&then, &tm));
    CHECK_ERROR(error, HF_EACCES, wanted);
    CHECK_ERROR(error, HF_EACCES, " UTC: it must be renewed");
    error = judge_dates(&c, 3600, 7200);
    then = time(NULL) + 3600;
    strftime(wanted, sizeof(wanted), "\"redis.test\" is not valid before %Y-%m-%d ",
             gmtime_r(&then, &tm));
    CHECK_ERROR(error, HF_EACCES, wanted);
    CHECK_ERROR(error, HF_EACCES, "is the clock of this machine right?");
    cast_close(&c);
}

TEST(so_has_that_of_an_authority) {
    cast c;
    pair p;
    identity old, server;
    cast_open(&c);
    identity_make(&old, &(identity_options){
                            .name = "Old CA", .authority = true, .from_s = -200, .until_s = -100});
    identity_make(&server, &(identity_options){.name = "s", .alt = "DNS:" HOST, .issuer = &old});
    pair_open(&p, &server, NULL);
    pair_connect(&p, &(hf__tls_options){.ca = slice(old.cert_pem)}, HOST);
    shake(&p);
    CHECK_ERROR(p.error, HF_EACCES,
                "the certificate of \"redis.test\" rests on \"Old CA\", whose own expired on ");
    pair_close(&p);
    identity_free(&old);
    identity_free(&server);
    cast_close(&c);
}

TEST(one_who_is_no_authority_signs_nothing) {
    cast c;
    pair p;
    identity server;
    cast_open(&c);
    identity_make(&server,
                  &(identity_options){.name = "s", .alt = "DNS:" HOST, .issuer = &c.client});
    pair_open(&p, &server, NULL);
    SSL_CTX_add1_chain_cert(p.server.ctx, c.client.cert);
    pair_connect(&p, &(hf__tls_options){.ca = slice(c.ca.cert_pem)}, HOST);
    shake(&p);
    CHECK(!p.shaken);
    CHECK_ERROR(p.error, HF_EACCES, "is not accepted: invalid CA certificate");
    pair_close(&p);
    identity_free(&server);
    cast_close(&c);
}

TEST(what_a_certificate_says_is_shown_in_plain_ascii) {
    cast c;
    pair p;
    identity evil, server;
    cast_open(&c);
    identity_make(&evil, &(identity_options){.name = "E\033[2J\nv%s\303\244l", .authority = true});
    identity_make(&server, &(identity_options){.name = "s", .alt = "DNS:" HOST, .issuer = &evil});
    pair_open(&p, &server, NULL);
    pair_connect(&p, &(hf__tls_options){.ca = slice(c.ca.cert_pem)}, HOST);
    shake(&p);
    CHECK_ERROR(p.error, HF_EACCES, "is signed by \"E?[2J?v%s");
    for (const char *s = p.error.message; *s != '\0'; s++)
        CHECK((unsigned char)*s >= 0x20 && (unsigned char)*s < 0x7f);
    pair_close(&p);
    identity_free(&evil);
    identity_free(&server);
    cast_close(&c);
}

TEST(without_a_name_nothing_is_verified_and_nobody_let_in) {
    cast c;
    cast_open(&c);
    static char longer[400];
    memset(longer, 'a', sizeof(longer) - 1);
    const char *const hosts[] = {"", "%eth0", longer};
    for (size_t i = 0; i < 3; i++) {
        hf_error error = judge(&c, &c.server, hosts[i]);
        CHECK_ERROR(error, HF_EACCES, "set tls.servername");
    }
    cast_close(&c);
}

TEST(old_versions_are_refused) {
    cast c;
    pair p;
    cast_open(&c);
    pair_open(&p, &c.server, NULL);
    SSL_CTX_set_security_level(p.server.ctx, 0);
    SSL_CTX_set_min_proto_version(p.server.ctx, TLS1_VERSION);
    SSL_CTX_set_max_proto_version(p.server.ctx, TLS1_1_VERSION);
    pair_connect(&p, &(hf__tls_options){.ca = slice(c.ca.cert_pem)}, HOST);
    shake(&p);
    CHECK_ERROR(p.error, HF_EACCES, "\"redis.test\" has no version of TLS from 1.2 on");
    pair_close(&p);
    cast_close(&c);
}

TEST(without_a_common_cipher_there_is_no_connection) {
    cast c;
    pair p;
    cast_open(&c);
    pair_open(&p, &c.server, NULL);
    SSL_CTX_set_max_proto_version(p.server.ctx, TLS1_2_VERSION);
    SSL_CTX_set_cipher_list(p.server.ctx, "AES128-SHA"); /* needs RSA */
    pair_connect(&p, &(hf__tls_options){.ca = slice(c.ca.cert_pem)}, HOST);
    shake(&p);
    CHECK_ERROR(p.error, HF_EACCES, "\"redis.test\" refused the TLS handshake");
    pair_close(&p);
    cast_close(&c);
}

/* ---------------------------------------------------------------- clients with a certificate */

static void show(const cast *c, int version, const identity *shown, pair *p) {
    hf__tls_options options = {.ca = slice(c->ca.cert_pem)};
    if (shown != NULL) {
        options.cert = slice(shown->cert_pem);
        options.key = slice(shown->key_pem);
    }
    pair_open(p, &c->server, &c->ca);
    SSL_CTX_set_max_proto_version(p->server.ctx, version);
    pair_connect(p, &options, HOST);
    shake(p);
    /* In TLS 1.3 the client has finished before the server looks. */
    if (!p->shaken || p->server.shaken) return;
    char data[8];
    CHECK_INT(version, TLS1_3_VERSION);
    CHECK_INT(read_client(p, data, sizeof(data)), -1);
}

static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};

TEST(a_client_certificate_is_shown_where_it_is_asked_for) {
    cast c;
    pair p;
    cast_open(&c);
    for (int i = 0; i < 2; i++) {
        show(&c, versions[i], &c.client, &p);
        says_hello_both_ways(&p);
        pair_close(&p);
    }
    cast_close(&c);
}

TEST(one_that_is_wanted_and_missing_is_told) {
    cast c;
    pair p;
    cast_open(&c);
    for (int i = 0; i < 2; i++) {
        show(&c, versions[i], NULL, &p);
        CHECK(!p.server.shaken);
        CHECK_ERROR(p.error, HF_EACCES,
                    "\"redis.test\" asks for a certificate of the client, which it has not got: "
                    "pass tls.cert and tls.key");
        pair_close(&p);
    }
    cast_close(&c);
}

TEST(one_that_is_refused_is_told) {
    cast c;
    pair p;
    cast_open(&c);
    for (int i = 0; i < 2; i++) {
        show(&c, versions[i], &c.stranger, &p);
        CHECK(!p.server.shaken);
        CHECK_ERROR(p.error, HF_EACCES,
                    "\"redis.test\" refused the certificate of tls.cert: it said \"unknown CA\"");
        pair_close(&p);
    }
    cast_close(&c);
}

TEST(the_chain_of_a_client_goes_along) {
    cast c;
    pair p;
    identity between, client;
    char chain[8192];
    cast_open(&c);
    identity_make(&between,
                  &(identity_options){.name = "Between", .authority = true, .issuer = &c.ca});
    identity_make(&client, &(identity_options){.name = "client", .issuer = &between});
    snprintf(chain, sizeof(chain), "%s%s", client.cert_pem, between.cert_pem);
    pair_open(&p, &c.server, &c.ca);
    pair_connect(&p,
                 &(hf__tls_options){.ca = slice(c.ca.cert_pem),
                                    .cert = slice(chain),
                                    .key = slice(client.key_pem)},
                 HOST);
    shake(&p);
    says_hello_both_ways(&p);
    pair_close(&p);
    identity_free(&between);
    identity_free(&client);
    cast_close(&c);
}

/* ---------------------------------------------------------------- the authorities of the system */

static void write_file(const char *path, const char *text) {
    FILE *file = fopen(path, "w");
    REQUIRE(file != NULL);
    fputs(text, file);
    fclose(file);
}

static hf_error judge_by_system(const identity *id) {
    pair p;
    pair_open(&p, id, NULL);
    pair_connect(&p, &(hf__tls_options){0}, HOST);
    shake(&p);
    hf_error error = p.error;
    pair_close(&p);
    return error;
}

TEST(the_system_says_whom_to_trust) {
    cast c;
    char file[512], hashed[512];
    cast_open(&c);
    hf_error error = judge_by_system(&c.server);
    CHECK_INT(error.code, HF_EACCES); /* whatever this machine has, it is not this one */
    const char *folder = hf_test_folder();
    snprintf(file, sizeof(file), "%s/ca.pem", folder);
    write_file(file, c.ca.cert_pem);
    setenv("SSL_CERT_FILE", file, 1);
    error = judge_by_system(&c.server);
    CHECK_INT(error.code, HF_OK);
    unsetenv("SSL_CERT_FILE");
    snprintf(hashed, sizeof(hashed), "%s/%08lx.0", folder, X509_subject_name_hash(c.ca.cert));
    write_file(hashed, c.ca.cert_pem);
    setenv("SSL_CERT_DIR", folder, 1);
    error = judge_by_system(&c.server);
    CHECK_INT(error.code, HF_OK);
    unlink(hashed);
    error = judge_by_system(&c.server);
    CHECK_ERROR(error, HF_EACCES,
                "is signed by \"Our CA\", an authority that is not trusted here: pass its "
                "certificate as tls.ca");
    unsetenv("SSL_CERT_DIR");
    setenv("SSL_CERT_FILE", "/nowhere/ca.pem", 1);
    error = judge_by_system(&c.server);
    CHECK_ERROR(error, HF_EACCES,
                "this machine has no certificates of authorities: install ca-certificates, or "
                "pass tls.ca");
    unsetenv("SSL_CERT_FILE");
    cast_close(&c);
}

/* ---------------------------------------------------------------- options that are no good */

static void check_refused(const hf__tls_options *options, const char *part) {
    hf__tls_context *context = NULL;
    hf_error error;
    CHECK_INT(hf__tls_context_new(options, hf__allocator_libc(), &context, &error), HF_EINVAL);
    CHECK_ERROR(error, HF_EINVAL, part);
    CHECK(!contains(error.message, "MII") && !contains(error.message, "s3cret"));
    CHECK_NULL(context);
    CHECK_UINT(ERR_peek_error(), 0);
}

static char *encrypted(const identity *id) {
    BIO *bio = BIO_new(BIO_s_mem());
    PEM_write_bio_PKCS8PrivateKey(bio, id->key, EVP_aes_128_cbc(), "s3cret", 6, NULL, NULL);
    return bio_text(bio);
}

TEST(what_cannot_be_read_is_refused_by_name) {
    cast c;
    char broken[8192];
    cast_open(&c);
    hf_slice ca = slice(c.ca.cert_pem), cert = slice(c.client.cert_pem);
    hf_slice key = slice(c.client.key_pem), other = slice(c.stranger.key_pem);
    check_refused(&(hf__tls_options){.ca = slice("s3cret")}, "tlsCa has no certificate in PEM");
    check_refused(&(hf__tls_options){.ca = key}, "tlsCa has no certificate in PEM");
    /* A good one before a broken one does not hide that. */
    snprintf(broken, sizeof(broken),
             "%s-----BEGIN CERTIFICATE-----\ns3cret\n-----END "
             "CERTIFICATE-----\n",
             c.ca.cert_pem);
    check_refused(&(hf__tls_options){.ca = slice(broken)},
                  "tlsCa has a certificate that cannot be read");
    check_refused(&(hf__tls_options){.ca = {ca.data, ca.len / 2}},
                  "tlsCa has a certificate that cannot be read");
    check_refused(&(hf__tls_options){.cert = cert}, "tlsCert needs tlsKey");
    check_refused(&(hf__tls_options){.key = key}, "tlsKey needs tlsCert");
    check_refused(&(hf__tls_options){.cert = key, .key = key},
                  "tlsCert has no certificate that can be read");
    check_refused(&(hf__tls_options){.cert = slice(broken), .key = key},
                  "tlsCert has a chain that cannot be read");
    check_refused(&(hf__tls_options){.cert = cert, .key = slice("s3cret")},
                  "tlsKey is no key that can be read");
    check_refused(&(hf__tls_options){.cert = cert, .key = {key.data, key.len / 2}},
                  "tlsKey is no key that can be read");
    check_refused(&(hf__tls_options){.cert = cert, .key = other},
                  "tlsKey does not belong to tlsCert");
    char *locked = encrypted(&c.client);
    check_refused(&(hf__tls_options){.cert = cert, .key = slice(locked)},
                  "tlsKey has a passphrase: take it off with \"openssl pkey\"");
    free(locked);
    check_refused(&(hf__tls_options){.servername = {"a\0b", 3}}, "tlsServername is no host name");
    cast_close(&c);
}

/* ---------------------------------------------------------------- bytes in any way */

TEST(byte_by_byte_is_as_good) {
    cast c;
    pair p;
    cast_open(&c);
    for (int i = 0; i < 2; i++) {
        pair_open(&p, &c.server, NULL);
        SSL_CTX_set_max_proto_version(p.server.ctx, versions[i]);
        pair_connect(&p, &(hf__tls_options){.ca = slice(c.ca.cert_pem)}, HOST);
        p.chunk = 1;
        shake(&p);
        says_hello_both_ways(&p);
        pair_close(&p);
    }
    cast_close(&c);
}

static char pattern(size_t i) {
    return (char)(i * 31 + i / 977);
}

/* The wire takes odd pieces, and never all of what there is. */
TEST(much_data_arrives_whole) {
    enum { SIZE = 3 << 20 };
    cast c;
    pair p;
    char data[10007];
    size_t got = 0, sent = 0, wrong = 0;
    char *big = malloc(SIZE);
    REQUIRE(big != NULL);
    for (size_t i = 0; i < SIZE; i++)
        big[i] = pattern(i);
    cast_open(&c);
    pair_open(&p, &c.server, NULL);
    pair_connect(&p, &(hf__tls_options){.ca = slice(c.ca.cert_pem)}, HOST);
    shake(&p);
    CHECK(hf__tls_write(p.client, big, SIZE, &p.error));
    p.chunk = 40009;
    while (move(&p) || got < SIZE) {
        int n;
        while ((n = SSL_read(p.server.ssl, data, sizeof(data))) > 0) {
            for (int i = 0; i < n; i++)
                wrong += data[i] != pattern(got++);
        }
        if (hf__tls_output(p.client).len == 0) break;
    }
    CHECK_UINT(got, SIZE);
    got = 0;
    while (got < SIZE) {
        if (sent < SIZE) {
            size_t n = SIZE - sent < 50021 ? SIZE - sent : 50021;
            int written = SSL_write(p.server.ssl, big + sent, (int)n);
            if (written > 0) sent += (size_t)written;
        }
        bool moved = move(&p);
        int n;
        while ((n = hf__tls_read(p.client, data, sizeof(data), &p.error)) > 0) {
            for (int i = 0; i < n; i++)
                wrong += data[i] != pattern(got++);
        }
        if (n < 0 || (!moved && sent == SIZE)) break;
    }
    CHECK_UINT(got, SIZE);
    CHECK_UINT(wrong, 0);
    free(big);
    pair_close(&p);
    cast_close(&c);
}

TEST(what_follows_the_handshake_at_once_is_not_lost) {
    cast c;
    pair p;
    char data[64] = "";
    cast_open(&c);
    pair_open(&p, &c.server, NULL);
    SSL_CTX_set_max_proto_version(p.server.ctx, TLS1_3_VERSION);
    SSL_CTX_set_num_tickets(p.server.ctx, 2);
    pair_connect(&p, &(hf__tls_options){.ca = slice(c.ca.cert_pem)}, HOST);
    shake(&p);
    CHECK_INT(SSL_write(p.server.ssl, "one", 3), 3);
    CHECK_INT(SSL_key_update(p.server.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
    CHECK_INT(SSL_write(p.server.ssl, "two", 3), 3);
    CHECK_INT(read_client(&p, data, 3), 3);
    CHECK_INT(hf__tls_read(p.client, data + 3, sizeof(data) - 3, &p.error), 3);
    CHECK_MEM(data, "onetwo", 6);
    says_hello_both_ways(&p);
    pair_close(&p);
    cast_close(&c);
}

/* ---------------------------------------------------------------- ends and nonsense */

TEST(a_peer_that_closes_is_told_apart) {
    cast c;
    pair p;
    char data[8];
    cast_open(&c);
    for (int i = 0; i < 2; i++) {
        pair_open(&p, &c.server, NULL);
        SSL_CTX_set_max_proto_version(p.server.ctx, versions[i]);
        pair_connect(&p, &(hf__tls_options){.ca = slice(c.ca.cert_pem)}, HOST);
        shake(&p);
        SSL_write(p.server.ssl, "last", 4);
        SSL_shutdown(p.server.ssl);
        CHECK_INT(read_client(&p, data, sizeof(data)), 4);
        for (int again = 0; again < 2; again++) {
            CHECK_INT(hf__tls_read(p.client, data, sizeof(data), &p.error), -1);
            CHECK_ERROR(p.error, HF_EUNAVAIL, "\"redis.test\" has closed the connection");
            CHECK_UINT(p.error.flags, HF_RETRYABLE);
        }
        pair_close(&p);
    }
    cast_close(&c);
}

TEST(a_server_that_would_shake_hands_again_is_told_no) {
    cast c;
    pair p;
    char data[8];
    cast_open(&c);
    pair_open(&p, &c.server, NULL);
    SSL_CTX_set_max_proto_version(p.server.ctx, TLS1_2_VERSION);
    pair_connect(&p, &(hf__tls_options){.ca = slice(c.ca.cert_pem)}, HOST);
    shake(&p);
    CHECK_INT(SSL_renegotiate(p.server.ssl), 1);
    SSL_do_handshake(p.server.ssl);
    CHECK_INT(read_client(&p, data, sizeof(data)), 0);
    CHECK(hf__tls_write(p.client, "still here", 10, &p.error));
    pair_close(&p);
    cast_close(&c);
}

static hf_error answer_with(const cast *c, const char *data, size_t len) {
    pair p;
    hf_error error = {0};
    pair_open(&p, &c->server, NULL);
    pair_connect(&p, &(hf__tls_options){.ca = slice(c->ca.cert_pem)}, HOST);
    CHECK(!hf__tls_handshake(p.client, &error));
    CHECK_INT(error.code, HF_OK);
    for (size_t i = 0; i < len && error.code == HF_OK; i++) {
        CHECK(hf__tls_receive(p.client, data + i, 1));
        CHECK(!hf__tls_handshake(p.client, &error));
    }
    /* It goes on being wrong. */
    hf_error again;
    if (error.code != HF_OK) {
        CHECK(!hf__tls_handshake(p.client, &again));
        CHECK(again.code != HF_OK);
    }
    pair_close(&p);
    return error;
}

TEST(a_server_without_tls_is_told_apart) {
    static const char *const answers[] = {
        "-ERR unknown command '\026\003\001', with args beginning with: \r\n",
        "+PONG\r\n",
        "HTTP/1.1 400 Bad Request\r\n\r\n",
    };
    cast c;
    cast_open(&c);
    for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        hf_error error = answer_with(&c, answers[i], strlen(answers[i]));
        CHECK_ERROR(error, HF_EPROTO,
                    "\"redis.test\" answered the TLS handshake with something else: is this its "
                    "port for TLS?");
    }
    cast_close(&c);
}

/* Whatever comes: an error, or a wait for more. */
TEST(random_bytes_never_open_a_connection) {
    cast c;
    unsigned state = 7;
    cast_open(&c);
    for (int round = 0; round < 60; round++) {
        char data[300];
        for (size_t i = 0; i < sizeof(data); i++) {
            state = state * 1103515245u + 12345u;
            data[i] = (char)(state >> 16);
        }
        /* Half of them begin as a record of the handshake does. */
        if (round % 2 == 0) memcpy(data, "\026\003\003\000\100\002", 6);
        hf_error error = answer_with(&c, data, sizeof(data));
        CHECK(error.code == HF_EPROTO || error.code == HF_OK || error.code == HF_EACCES);
    }
    cast_close(&c);
}

TEST(records_that_were_changed_on_the_way_are_refused) {
    cast c;
    pair p;
    char data[64];
    cast_open(&c);
    for (int i = 0; i < 2; i++) {
        pair_open(&p, &c.server, NULL);
        SSL_CTX_set_max_proto_version(p.server.ctx, versions[i]);
        pair_connect(&p, &(hf__tls_options){.ca = slice(c.ca.cert_pem)}, HOST);
        shake(&p);
        CHECK_INT(SSL_write(p.server.ssl, "+OK\r\n", 5), 5);
        int n = BIO_read(p.server.out, data, sizeof(data));
        REQUIRE(n > 10);
        data[n - 3] ^= 1;
        CHECK(hf__tls_receive(p.client, data, (size_t)n));
        CHECK_INT(hf__tls_read(p.client, data, sizeof(data), &p.error), -1);
        CHECK_ERROR(p.error, HF_EPROTO, "\"redis.test\" sent what is no TLS: ");
        CHECK(hf__tls_output(p.client).len > 0); /* the alert */
        CHECK_INT(hf__tls_read(p.client, data, sizeof(data), &p.error), -1);
        CHECK_INT(p.error.code, HF_EPROTO);
        CHECK(!hf__tls_write(p.client, "x", 1, &p.error));
        CHECK_INT(p.error.code, HF_EPROTO);
        pair_close(&p);
    }
    cast_close(&c);
}

/* ---------------------------------------------------------------- memory and threads */

static atomic_long countdown;
static atomic_long blocks;

static void *scarce_resize(void *data, void *p, size_t size) {
    (void)data;
    if (size == 0) {
        if (p != NULL) atomic_fetch_sub(&blocks, 1);
        free(p);
        return NULL;
    }
    if (atomic_load(&countdown) > 0 && atomic_fetch_sub(&countdown, 1) == 1) return NULL;
    void *q = realloc(p, size);
    if (p == NULL && q != NULL) atomic_fetch_add(&blocks, 1);
    return q;
}

/* A whole connection, with the n-th allocation failing. True: none was left to fail. */
static bool live_with_failure(const cast *c, long n) {
    static const hf_allocator scarce = {.resize = scarce_resize};
    hf__tls_options options = {.ca = slice(c->ca.cert_pem), .servername = slice(HOST)};
    pair p;
    char data[64];
    static char big[70000];
    pair_open(&p, &c->server, NULL);
    tls_server_accept(&p.server);
    atomic_store(&countdown, n);
    hf_code code = hf__tls_context_new(&options, &scarce, &p.context, &p.error);
    CHECK(code == HF_OK || code == HF_ENOMEM);
    if (code == HF_OK) p.client = hf__tls_new(p.context, "127.0.0.1");
    while (p.client != NULL && p.error.code == HF_OK && !p.server.shaken) {
        if (!p.shaken) p.shaken = hf__tls_handshake(p.client, &p.error);
        hf_slice out = hf__tls_output(p.client);
        if (out.len > 0) BIO_write(p.server.in, out.data, (int)out.len);
        hf__tls_sent(p.client, out.len);
        tls_server_shake(&p.server);
        int got = BIO_read(p.server.out, big, sizeof(big));
        if (got > 0 && !hf__tls_receive(p.client, big, (size_t)got)) break;
    }
    if (p.shaken && p.server.shaken && p.error.code == HF_OK) {
        if (hf__tls_write(p.client, big, sizeof(big), &p.error))
            CHECK(hf__tls_read(p.client, data, sizeof(data), &p.error) == 0);
    }
    CHECK(p.error.code == HF_OK || p.error.code == HF_ENOMEM);
    bool survived = atomic_load(&countdown) > 0;
    atomic_store(&countdown, 0);
    pair_close(&p);
    CHECK_INT(atomic_load(&blocks), 0);
    return survived;
}

TEST(every_allocation_may_fail) {
    cast c;
    long n = 1;
    cast_open(&c);
    while (!live_with_failure(&c, n) && n < 200)
        n++;
    CHECK(n > 5 && n < 200);
    cast_close(&c);
}

static cast common;

static void *live(void *arg) {
    int *shaken = arg;
    unsigned char digest[HF__SHA1_BYTES];
    CHECK(hf__sha1("abc", 3, digest));
    CHECK_MEM(digest, "\xa9\x99\x3e\x36", 4);
    for (int i = 0; i < 8; i++) {
        hf_error error = judge(&common, &common.server, i % 2 == 0 ? HOST : "else.test");
        if (error.code == HF_OK) ++*shaken;
    }
    return NULL;
}

TEST(threads_have_contexts_of_their_own) {
    pthread_t threads[3];
    int shaken[3] = {0};
    cast_open(&common);
    for (int i = 0; i < 3; i++)
        REQUIRE(pthread_create(&threads[i], NULL, live, &shaken[i]) == 0);
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        CHECK_INT(shaken[i], 4);
    }
    cast_close(&common);
}
