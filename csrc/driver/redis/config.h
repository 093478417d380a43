/*
 * What a URL and settings say of a Redis deployment.
 */
#ifndef HF_DRIVER_REDIS_CONFIG_H
#define HF_DRIVER_REDIS_CONFIG_H

#include "core/store.h"
#include "driver/redis/tls.h"

typedef enum hf__redis_kind {
    HF__REDIS_SINGLE,
    HF__REDIS_SENTINEL, /* hosts are Sentinels, `master` the name they know it by */
    HF__REDIS_CLUSTER   /* hosts are where to ask first */
} hf__redis_kind;

#define HF__REDIS_HOSTS_MAX 16
#define HF__REDIS_HOST_MAX 256 /* bytes of a host's name, the NUL included */

typedef struct hf__redis_address {
    char host[HF__REDIS_HOST_MAX]; /* a name, an IP address without brackets, or a socket's path */
    uint16_t port;                 /* 0: `host` is the path of a unix socket */
} hf__redis_address;

/* Slices point into the URL and settings of the env, which outlive it. */
typedef struct hf__redis_config {
    hf__redis_kind kind;
    hf__redis_address hosts[HF__REDIS_HOSTS_MAX];
    size_t n_hosts;
    hf_slice master;
    hf_slice username;
    hf_slice password;
    hf_slice sentinel_username;
    hf_slice sentinel_password;
    uint32_t db;
    uint32_t connect_ms;
    uint32_t command_ms;
    bool tls;
    hf__tls_options tls_options;
} hf__redis_config;

/* Errors: HF_EINVAL, HF_ENOTSUP. */
hf_code hf__redis_config_read(hf__redis_config *config, const hf__store_env *env, hf_error *error);

/* "10.0.0.1:6379", "[::1]:6379" or a path. */
void hf__redis_address_show(const hf__redis_address *address, char *text, size_t size);
/* Reads "host", "host:port", "[::1]:port". False: it is not one. */
bool hf__redis_address_read(hf_slice text, uint16_t port, hf__redis_address *address);

#endif
