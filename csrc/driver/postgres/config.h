/*
 * What a URL, settings and the environment say of a PostgreSQL server, in the terms of libpq: its
 * keywords are our parameters, and what nobody says it takes from PG* variables and defaults
 * (PostgreSQL manual, "Database Connection Control Functions").
 */
#ifndef HF_DRIVER_POSTGRES_CONFIG_H
#define HF_DRIVER_POSTGRES_CONFIG_H

#include "core/store.h"
#include "driver/address.h"

#define HF__PG_HOSTS_MAX 16
#define HF__PG_WORDS_MAX 64

/* libpq's keywords that are taken, separated by blanks. */
#define HF__PG_KEYWORDS                                                                           \
    "host hostaddr port user username password passfile dbname application_name options "         \
    "service target_session_attrs sslmode sslcompression sslcert sslkey sslpassword sslrootcert " \
    "sslcrl sslcrldir sslsni ssl_min_protocol_version ssl_max_protocol_version "                  \
    "channel_binding requirepeer krbsrvname gsslib gssencmode keepalives keepalives_idle "        \
    "keepalives_interval keepalives_count tcp_user_timeout connect_timeout "                      \
    "client_encoding"
/* And ours, of connections; `max` and `idleTimeout` are of those that a pool makes. */
#define HF__PG_PARAMS HF__PG_KEYWORDS " connectTimeout commandTimeout pooler max idleTimeout"

/* One place where the server may be. */
typedef struct hf__pg_host {
    hf__address address;  /* port 0: the folder of a unix socket; "" is libpq's own */
    char number[64];      /* hostaddr: no name is to be looked up; "" if there is none */
    uint16_t socket_port; /* names the socket in the folder */
} hf__pg_host;

typedef struct hf__pg_config {
    hf__pg_host hosts[HF__PG_HOSTS_MAX];
    size_t n_hosts;
    /* The rest, as libpq takes it; the texts live in `text`, or are constant. */
    const char *words[HF__PG_WORDS_MAX];
    const char *values[HF__PG_WORDS_MAX];
    size_t n_words;
    char *texts[HF__PG_WORDS_MAX];
    size_t n_texts;
    const char *target; /* target_session_attrs; NULL: not said */
    bool prefers_standby;
    uint32_t connect_ms; /* for all hosts together */
    uint32_t command_ms;
    uint32_t pool_max; /* sessions of a pool */
    uint32_t idle_ms;  /* how long one of them is kept that nobody uses */
    enum { HF__PG_POOLER_FOUND_OUT, HF__PG_POOLER_SESSION, HF__PG_POOLER_TRANSACTION } pooler;
} hf__pg_config;

/* Errors: HF_EINVAL, HF_ENOMEM. After an error there is nothing to be freed. */
hf_code hf__pg_config_read(hf__pg_config *config, const hf__store_env *env, hf_error *error);
void hf__pg_config_fini(hf__pg_config *config, const hf_allocator *allocator);

#endif
