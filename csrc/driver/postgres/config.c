#include "driver/postgres/config.h"

#include "core/credentials.h"
#include "util/alloc.h"

#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PORT 5432
#define CONNECT_MS 5000
#define COMMAND_MS 5000
#define TIMEOUT_MIN_MS 10
#define TIMEOUT_MAX_MS 3600000
#define POOL_MAX 10
#define POOL_MAX_MAX 1000
#define IDLE_MS 10000

/* What connections of a lock library need and libpq does not do by itself: a peer that is gone in
 * silence is noticed within seconds, and nobody looks for Kerberos tickets, which blocks. */
static const struct {
    const char *word;
    const char *value;
} defaults[] = {
    {"client_encoding", "UTF8"}, {"keepalives_idle", "5"},      {"keepalives_interval", "2"},
    {"keepalives_count", "3"},   {"tcp_user_timeout", "10000"}, {"gssencmode", "disable"},
};

typedef struct reading {
    hf__pg_config *config;
    const hf__store_env *env;
    PQconninfoOption *options; /* what stands in a string of words, or nothing */
    PQconninfoOption *system;  /* what the environment and a service say */
    hf_error *error;
} reading;

/* ---------------------------------------------------------------- words */

static const char *option(PQconninfoOption *options, const char *word) {
    for (PQconninfoOption *o = options; o != NULL && o->keyword != NULL; o++) {
        if (strcmp(o->keyword, word) == 0 && o->val != NULL && o->val[0] != '\0') return o->val;
    }
    return NULL;
}

/* Remembers a copy; NULL when memory is out. */
static const char *keep(reading *r, hf_slice text) {
    hf__pg_config *config = r->config;
    char *copy = hf__copy(r->env->allocator, text);

    if (copy == NULL)
        hf__error_set(r->error, HF_ENOMEM, HF_RETRYABLE, NULL);
    else
        config->texts[config->n_texts++] = copy;
    return copy;
}

static void add(hf__pg_config *config, const char *word, const char *value) {
    config->words[config->n_words] = word;
    config->values[config->n_words++] = value;
}

static hf_slice of(const char *text) {
    return (hf_slice){text, text == NULL ? 0 : strlen(text)};
}

/* What is said of a word by a setting, the URL, or the string of words, in this order. */
static hf_slice said(const reading *r, const char *word) {
    hf_slice value = {NULL, 0};

    if (!hf__setting_get(r->env, word, &value)) value = of(option(r->options, word));
    return value;
}

/* Words that are not libpq's, or that we pass on in another way. */
static bool is_own(const char *word) {
    static const char own[] = "host hostaddr port user username password dbname "
                              "target_session_attrs connect_timeout";
    return hf__has_word(own, of(word));
}

static bool has(const hf__pg_config *config, const char *word) {
    for (size_t i = 0; i < config->n_words; i++) {
        if (strcmp(config->words[i], word) == 0) return true;
    }
    return false;
}

/* Whether the environment or the service says something of it. */
static bool is_given(const reading *r, const char *word) {
    const PQconninfoOption *o = r->system;

    while (o->keyword != NULL && strcmp(o->keyword, word) != 0)
        o++;
    if (o->keyword == NULL || o->val == NULL) return false;
    if (o->envvar != NULL && getenv(o->envvar) != NULL) return true;
    return o->compiled == NULL || strcmp(o->val, o->compiled) != 0;
}

static bool add_said(reading *r, const char *word, hf_slice value) {
    const char *text;

    if (value.len == 0) return true;
    text = keep(r, value);
    if (text != NULL) add(r->config, word, text);
    return text != NULL;
}

static bool read_words(reading *r) {
    const hf__url *url = r->env->url;
    hf_slice user = said(r, "user");
    hf_slice password = said(r, "password");
    hf_slice dbname = said(r, "dbname");

    if (user.len == 0) user = said(r, "username");
    if (user.len == 0) user = url->user;
    if (password.len == 0) password = url->password;
    if (dbname.len == 0 && url->has_authority) dbname = url->path;
    if (!add_said(r, "user", user) || !add_said(r, "dbname", dbname)) return false;
    if (!hf__password_is_asked(r->env) && !add_said(r, "password", password)) return false;
    /* The names that this libpq knows: `system` has them all. */
    for (const PQconninfoOption *o = r->system; o->keyword != NULL; o++) {
        if (!is_own(o->keyword) && !add_said(r, o->keyword, said(r, o->keyword))) return false;
    }
    for (size_t i = 0; i < sizeof defaults / sizeof defaults[0]; i++) {
        if (!has(r->config, defaults[i].word) && !is_given(r, defaults[i].word))
            add(r->config, defaults[i].word, defaults[i].value);
    }
    return true;
}

/* ---------------------------------------------------------------- hosts */

/* The next of a list separated by commas; false at its end. */
static bool next_item(hf_slice *rest, hf_slice *item) {
    const char *comma;

    if (rest->data == NULL) return false;
    comma = rest->len == 0 ? NULL : memchr(rest->data, ',', rest->len);
    *item = *rest;
    if (comma == NULL) {
        *rest = (hf_slice){NULL, 0};
        return true;
    }
    item->len = (size_t)(comma - rest->data);
    *rest = (hf_slice){comma + 1, rest->len - item->len - 1};
    return true;
}

static bool refuse(reading *r, const char *why) {
    hf__error_set(r->error, HF_EINVAL, 0, "%s", why);
    return false;
}

static bool copy(char *to, size_t size, hf_slice text) {
    if (text.len >= size) return false;
    if (text.len > 0) memcpy(to, text.data, text.len);
    to[text.len] = '\0';
    return true;
}

/* An address, for which no name is to be looked up. */
static bool is_number(const char *host) {
    unsigned char address[16];

    return uv_inet_pton(AF_INET, host, address) == 0 || uv_inet_pton(AF_INET6, host, address) == 0;
}

static bool add_host(reading *r, hf_slice name, hf_slice number, uint16_t port) {
    hf__pg_config *config = r->config;
    hf__pg_host *host = &config->hosts[config->n_hosts];
    bool is_folder =
        number.len == 0 && (name.len == 0 || name.data[0] == '/' || name.data[0] == '@');

    if (config->n_hosts == HF__PG_HOSTS_MAX) return refuse(r, "more than 16 hosts are named");
    if (!copy(host->address.host, sizeof host->address.host, name) ||
        !copy(host->number, sizeof host->number, number))
        return refuse(r, "a host's name is too long");
    if (host->number[0] == '\0' && is_number(host->address.host))
        (void)copy(host->number, sizeof host->number, name);
    host->address.port = is_folder ? 0 : port;
    host->socket_port = port;
    config->n_hosts++;
    return true;
}

/* "a:1,[::1]:2" of a URL. */
static bool read_url_hosts(reading *r, hf_slice list) {
    hf_slice item;
    hf__address address;

    while (next_item(&list, &item)) {
        if (!hf__address_read(item, PORT, &address))
            return refuse(r, "the URL's hosts are \"name\", \"name:port\" or \"[IPv6]:port\", "
                             "separated by commas");
        if (!add_host(r, of(address.host), (hf_slice){NULL, 0}, address.port)) return false;
    }
    return true;
}

/* host, hostaddr and port of libpq: lists of one length each, or one port for all. */
static bool read_lists(reading *r, hf_slice names, hf_slice numbers, hf_slice ports) {
    hf_slice name = {NULL, 0}, number = {NULL, 0}, port = {NULL, 0};
    bool one_port = ports.data == NULL || memchr(ports.data, ',', ports.len) == NULL;
    uint64_t value = PORT;

    if (names.data == NULL && numbers.data == NULL) names = of("");
    for (;;) {
        bool has_name = next_item(&names, &name);
        bool has_number = next_item(&numbers, &number);

        if (!has_name && !has_number) return true;
        if (r->config->n_hosts > 0 && has_name != has_number && name.data != NULL &&
            number.data != NULL)
            return refuse(r, "host and hostaddr name as many hosts as each other");
        if ((!one_port || r->config->n_hosts == 0) && ports.len > 0 &&
            (!next_item(&ports, &port) ||
             (port.len > 0 && !hf__parse_uint(port, 1, 65535, &value))))
            return refuse(r, "port is a number from 1 to 65535, or one for each host");
        if (!add_host(r, has_name ? name : (hf_slice){NULL, 0},
                      has_number ? number : (hf_slice){NULL, 0}, (uint16_t)value))
            return false;
    }
}

static bool read_hosts(reading *r) {
    const hf__url *url = r->env->url;
    hf_slice names = said(r, "host");
    hf_slice numbers = said(r, "hostaddr");
    hf_slice ports = said(r, "port");
    char port[8];

    if (names.len == 0 && numbers.len == 0 &&
        memchr(url->host.data ? url->host.data : "", ',', url->host.len) != NULL)
        return read_url_hosts(r, url->host);
    if (names.len == 0 && numbers.len == 0) names = url->host;
    if (ports.len == 0 && url->port != 0) {
        snprintf(port, sizeof port, "%u", (unsigned)(uint16_t)url->port);
        ports = of(port);
    }
    if (names.len == 0) names = of(numbers.len > 0 ? NULL : option(r->system, "host"));
    if (numbers.len == 0 && names.len == 0) numbers = of(option(r->system, "hostaddr"));
    if (ports.len == 0) ports = of(option(r->system, "port"));
    return read_lists(r, names.len > 0 ? names : (hf_slice){NULL, 0},
                      numbers.len > 0 ? numbers : (hf_slice){NULL, 0}, ports);
}

/* ---------------------------------------------------------------- the rest */

static bool read_number(const reading *r, const char *name, uint32_t min, uint32_t max,
                        uint32_t *value) {
    hf_slice text;
    uint64_t number;

    if (!hf__setting_get(r->env, name, &text)) return true;
    if (!hf__parse_uint(text, min, max, &number)) {
        hf__error_set(r->error, HF_EINVAL, 0, "%s is a number from %u to %u", name, (unsigned)min,
                      (unsigned)max);
        return false;
    }
    *value = (uint32_t)number;
    return true;
}

static bool read_time(const reading *r, const char *name, uint32_t *value) {
    return read_number(r, name, TIMEOUT_MIN_MS, TIMEOUT_MAX_MS, value);
}

static bool read_pool(const reading *r) {
    r->config->pool_max = POOL_MAX;
    r->config->idle_ms = IDLE_MS;
    return read_number(r, "max", 1, POOL_MAX_MAX, &r->config->pool_max) &&
           read_time(r, "idleTimeout", &r->config->idle_ms);
}

/* libpq would wait for ever by itself, and its word for that counts seconds. */
static bool read_timeouts(reading *r) {
    hf_slice seconds = said(r, "connect_timeout");
    uint64_t value;

    if (seconds.len == 0) seconds = of(option(r->system, "connect_timeout"));
    r->config->connect_ms = CONNECT_MS;
    r->config->command_ms = COMMAND_MS;
    if (seconds.len > 0 && hf__parse_uint(seconds, 1, TIMEOUT_MAX_MS / 1000, &value))
        r->config->connect_ms = (uint32_t)value * 1000;
    return read_time(r, "connectTimeout", &r->config->connect_ms) &&
           read_time(r, "commandTimeout", &r->config->command_ms);
}

static bool read_target(reading *r) {
    static const char known[] = "any read-write read-only primary standby prefer-standby";
    hf_slice target = said(r, "target_session_attrs");

    if (target.len == 0) target = of(option(r->system, "target_session_attrs"));
    if (target.len == 0) return true;
    if (!hf__has_word(known, target))
        return refuse(r, "target_session_attrs is any, read-write, read-only, primary, standby or "
                         "prefer-standby");
    r->config->prefers_standby = hf__slice_is(target, "prefer-standby");
    r->config->target = keep(r, r->config->prefers_standby ? of("standby") : target);
    return r->config->target != NULL;
}

static bool read_pooler(reading *r) {
    hf_slice text;

    if (!hf__setting_get(r->env, "pooler", &text)) return true;
    if (hf__slice_is(text, "session"))
        r->config->pooler = HF__PG_POOLER_SESSION;
    else if (hf__slice_is(text, "transaction"))
        r->config->pooler = HF__PG_POOLER_TRANSACTION;
    else
        return refuse(r, "pooler is \"session\" or \"transaction\": how a pooler in between lends "
                         "its connections; without it that is found out");
    return true;
}

/* "postgres:host=a dbname=b", all that libpq takes; its own message might repeat a password. */
static bool read_string(reading *r) {
    const hf__url *url = r->env->url;

    if (url->has_authority || url->path.len == 0) return true;
    r->options = PQconninfoParse(url->path.data, NULL);
    if (r->options == NULL)
        return refuse(r, "after \"postgres:\" comes \"//host/database\", or libpq's words: "
                         "\"host=a dbname=b\"");
    return true;
}

/* Parameters of a service, which libpq reads only where it connects; so it is asked for that with
 * something that keeps it from it. */
static bool read_service(reading *r) {
    static const char *const words[] = {"service", "sslmode", NULL};
    hf_slice service = said(r, "service");
    const char *values[] = {NULL, "none of them", NULL};
    PQconninfoOption *found;
    PGconn *conn;
    bool known;

    if (service.len == 0) return true;
    values[0] = keep(r, service);
    if (values[0] == NULL) return false;
    conn = PQconnectStartParams(words, values, 0);
    known = conn != NULL && strstr(PQerrorMessage(conn), "sslmode") != NULL;
    found = known ? PQconninfo(conn) : NULL;
    PQfinish(conn);
    if (!known)
        return refuse(r, "service is the name of one in ~/.pg_service.conf, or where PGSERVICEFILE "
                         "or PGSYSCONFDIR say");
    if (found == NULL) {
        hf__error_set(r->error, HF_ENOMEM, HF_RETRYABLE, NULL);
        return false;
    }
    PQconninfoFree(r->system);
    r->system = found;
    return true;
}

hf_code hf__pg_config_read(hf__pg_config *config, const hf__store_env *env, hf_error *error) {
    reading r = {.config = config, .env = env, .error = error};
    bool good;

    memset(config, 0, sizeof *config);
    r.system = PQconndefaults();
    if (r.system == NULL) return hf__error_set(error, HF_ENOMEM, HF_RETRYABLE, NULL);
    good = read_string(&r) && read_service(&r) && read_hosts(&r) && read_words(&r) &&
           read_timeouts(&r) && read_target(&r) && read_pooler(&r) && read_pool(&r);
    PQconninfoFree(r.system);
    if (r.options != NULL) PQconninfoFree(r.options);
    if (!good) hf__pg_config_fini(config, env->allocator);
    return good ? HF_OK : error->code;
}

void hf__pg_config_fini(hf__pg_config *config, const hf_allocator *allocator) {
    while (config->n_texts > 0) {
        char *text = config->texts[--config->n_texts];
        /* One of them may be a password. */
        explicit_bzero(text, strlen(text));
        hf__free(allocator, text);
    }
}
