#include "driver/redis/config.h"

#include <stdio.h>
#include <string.h>

#define PORT 6379
#define SENTINEL_PORT 26379
#define CONNECT_MS 5000
#define COMMAND_MS 5000
#define TIMEOUT_MIN_MS 10
#define TIMEOUT_MAX_MS 3600000
#define DB_MAX 65535

typedef struct scheme {
    const char *name;
    hf__redis_kind kind;
    bool tls;
} scheme;

static const scheme schemes[] = {
    {"redis", HF__REDIS_SINGLE, false},
    {"rediss", HF__REDIS_SINGLE, true},
    {"valkey", HF__REDIS_SINGLE, false},
    {"valkeys", HF__REDIS_SINGLE, true},
    {"unix", HF__REDIS_SINGLE, false},
    {"redis+sentinel", HF__REDIS_SENTINEL, false},
    {"rediss+sentinel", HF__REDIS_SENTINEL, true},
    {"redis+cluster", HF__REDIS_CLUSTER, false},
    {"rediss+cluster", HF__REDIS_CLUSTER, true},
};

/* ---------------------------------------------------------------- hosts */

static hf_code add_host(hf__redis_config *config, hf_slice one, hf_error *error) {
    uint16_t port = config->kind == HF__REDIS_SENTINEL ? SENTINEL_PORT : PORT;

    if (config->n_hosts == HF__REDIS_HOSTS_MAX)
        return hf__error_set(error, HF_EINVAL, 0, "the URL names more than %d hosts",
                             HF__REDIS_HOSTS_MAX);
    if (!hf__address_read(one, port, &config->hosts[config->n_hosts]))
        return hf__error_set(error, HF_EINVAL, 0,
                             "host %zu of the URL is not \"name\", \"name:port\" or "
                             "\"[IPv6]:port\" (in a password, write / as %%2F)",
                             config->n_hosts + 1);
    config->n_hosts++;
    return HF_OK;
}

static hf_code read_hosts(hf__redis_config *config, const hf__url *url, hf_error *error) {
    static const hf_slice local = {"127.0.0.1", 9};
    hf_slice rest = url->host.len > 0 ? url->host : local;

    if (memchr(rest.data, ',', rest.len) == NULL) {
        hf__address *first = &config->hosts[0];
        if (rest.len >= sizeof first->host)
            return hf__error_set(error, HF_EINVAL, 0, "the URL's host is too long");
        memcpy(first->host, rest.data, rest.len);
        first->host[rest.len] = '\0';
        first->port = config->kind == HF__REDIS_SENTINEL ? SENTINEL_PORT : PORT;
        if (url->port != 0) first->port = (uint16_t)url->port;
        config->n_hosts = 1;
        return HF_OK;
    }
    if (config->kind == HF__REDIS_SINGLE)
        return hf__error_set(error, HF_EINVAL, 0,
                             "several hosts are for \"redis+sentinel://\" and "
                             "\"redis+cluster://\"");
    while (rest.len > 0) {
        const char *comma = memchr(rest.data, ',', rest.len);
        size_t len = comma == NULL ? rest.len : (size_t)(comma - rest.data);
        if (add_host(config, (hf_slice){rest.data, len}, error) != HF_OK) return error->code;
        len += comma == NULL ? 0 : 1;
        rest = (hf_slice){rest.data + len, rest.len - len};
    }
    return HF_OK;
}

/* "unix:/run/redis.sock" and "unix://user:password@/run/redis.sock". */
static hf_code read_socket(hf__redis_config *config, const hf__url *url, hf_error *error) {
    char *path = config->hosts[0].host;
    int len = snprintf(path, HF__HOST_MAX, "%s%s", url->has_authority ? "/" : "",
                       url->path.len > 0 ? url->path.data : "");

    if (url->host.len > 0)
        return hf__error_set(error, HF_EINVAL, 0,
                             "the URL of a unix socket has no host: \"unix:/run/redis.sock\"");
    if (len < 2) return hf__error_set(error, HF_EINVAL, 0, "the URL names no socket");
    if (len > 107) /* sun_path less its NUL, unix(7) */
        return hf__error_set(error, HF_EINVAL, 0, "the path of a socket has 107 bytes at most");
    config->n_hosts = 1;
    return HF_OK;
}

/* ---------------------------------------------------------------- the rest */

static hf_code read_number(const hf__store_env *env, const char *name, uint64_t low, uint64_t high,
                           uint32_t *value, hf_error *error) {
    hf_slice text;
    uint64_t number;

    if (!hf__setting_get(env, name, &text)) return HF_OK;
    if (!hf__parse_uint(text, low, high, &number))
        return hf__error_set(error, HF_EINVAL, 0, "%s is a number from %llu to %llu", name,
                             (unsigned long long)low, (unsigned long long)high);
    *value = (uint32_t)number;
    return HF_OK;
}

static hf_code read_flag(const hf__store_env *env, const char *name, bool *value, hf_error *error) {
    hf_slice text;

    if (!hf__setting_get(env, name, &text)) return HF_OK;
    if (!hf__slice_is(text, "true") && !hf__slice_is(text, "false"))
        return hf__error_set(error, HF_EINVAL, 0, "%s is true or false", name);
    *value = hf__slice_is(text, "true");
    return HF_OK;
}

/* The database is a parameter, or the URL's path: "redis://host/2". A path of Sentinel's URL is
 * the master's name. */
static hf_code read_path(hf__redis_config *config, const hf__url *url, hf_error *error) {
    uint64_t db;

    if (config->kind == HF__REDIS_SENTINEL) {
        config->master = url->path;
        if (url->path.len == 0)
            return hf__error_set(error, HF_EINVAL, 0,
                                 "the URL lacks the master's name: "
                                 "\"redis+sentinel://host1,host2/mymaster\"");
        return HF_OK;
    }
    if (url->path.len == 0) return HF_OK;
    if (!hf__parse_uint(url->path, 0, DB_MAX, &db))
        return hf__error_set(error, HF_EINVAL, 0,
                             "after the host comes the number of a database: "
                             "\"redis://host:6379/0\"; in a password write / ? # : @ as "
                             "%%2F %%3F %%23 %%3A %%40");
    config->db = (uint32_t)db;
    return HF_OK;
}

static hf_code read_tls(hf__redis_config *config, const hf__store_env *env, hf_error *error) {
    hf__tls_options *tls = &config->tls_options;
    bool verify = true;

    if (read_flag(env, "tls", &config->tls, error) != HF_OK) return error->code;
    if (read_flag(env, "tlsRejectUnauthorized", &verify, error) != HF_OK) return error->code;
    tls->insecure = !verify;
    hf__setting_get(env, "tlsCa", &tls->ca);
    hf__setting_get(env, "tlsRoots", &tls->roots);
    hf__setting_get(env, "tlsCert", &tls->cert);
    hf__setting_get(env, "tlsKey", &tls->key);
    hf__setting_get(env, "tlsServername", &tls->servername);
    if (config->tls && config->hosts[0].port == 0)
        return hf__error_set(error, HF_EINVAL, 0, "a unix socket has no TLS");
    return HF_OK;
}

static hf_code read_rest(hf__redis_config *config, const hf__store_env *env, hf_error *error) {
    const hf__url *url = env->url;

    config->username = url->user;
    config->password = url->password;
    hf__setting_get(env, "username", &config->username);
    hf__setting_get(env, "password", &config->password);
    hf__setting_get(env, "sentinelUsername", &config->sentinel_username);
    hf__setting_get(env, "sentinelPassword", &config->sentinel_password);
    if (read_number(env, "db", 0, DB_MAX, &config->db, error) != HF_OK) return error->code;
    if (read_number(env, "connectTimeout", TIMEOUT_MIN_MS, TIMEOUT_MAX_MS, &config->connect_ms,
                    error) != HF_OK)
        return error->code;
    if (read_number(env, "commandTimeout", TIMEOUT_MIN_MS, TIMEOUT_MAX_MS, &config->command_ms,
                    error) != HF_OK)
        return error->code;
    if (config->kind == HF__REDIS_CLUSTER && config->db != 0)
        return hf__error_set(error, HF_EINVAL, 0, "a cluster has no database but 0");
    return HF_OK;
}

hf_code hf__redis_config_read(hf__redis_config *config, const hf__store_env *env, hf_error *error) {
    const hf__url *url = env->url;
    const scheme *s = NULL;
    bool is_socket = hf__slice_is(url->scheme, "unix");

    memset(config, 0, sizeof *config);
    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
        if (hf__slice_is(url->scheme, schemes[i].name)) s = &schemes[i];
    }
    if (s == NULL) return hf__error_set(error, HF_ENOTSUP, 0, "the URL is not one of Redis");
    config->kind = s->kind;
    config->tls = s->tls;
    config->connect_ms = CONNECT_MS;
    config->command_ms = COMMAND_MS;
    if (is_socket) {
        if (read_socket(config, url, error) != HF_OK) return error->code;
    } else {
        if (!url->has_authority)
            return hf__error_set(error, HF_EINVAL, 0,
                                 "a Redis URL looks like \"redis://host:6379\"");
        if (read_hosts(config, url, error) != HF_OK) return error->code;
        if (read_path(config, url, error) != HF_OK) return error->code;
    }
    if (read_rest(config, env, error) != HF_OK) return error->code;
    return read_tls(config, env, error);
}
