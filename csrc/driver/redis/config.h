/*
 * What a URL and settings say of a Redis deployment.
 */
#ifndef HF_DRIVER_REDIS_CONFIG_H
#define HF_DRIVER_REDIS_CONFIG_H

#include "core/store.h"
#include "driver/address.h"
#include "driver/redis/tls.h"

typedef enum hf__redis_kind {
    HF__REDIS_SINGLE,
    HF__REDIS_SENTINEL, /* hosts are Sentinels, `master` the name they know it by */
    HF__REDIS_CLUSTER   /* hosts are where to ask first */
} hf__redis_kind;

#define HF__REDIS_HOSTS_MAX 16

/* Slices point into the URL and settings of the env, which outlive it. */
typedef struct hf__redis_config {
    hf__redis_kind kind;
    hf__address hosts[HF__REDIS_HOSTS_MAX];
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

#endif
