#include "driver/redis/error.h"

#include <string.h>

typedef struct meaning {
    const char *prefix;
    hf_code code;
    uint32_t flags;
    const char *advice;
} meaning;

/* The prefixes of Redis 6 to 8 and Valkey 8 (server.c, createSharedObjects), with what to do. */
static const meaning meanings[] = {
    {"NOAUTH", HF_EACCES, 0, "it wants a password: give one in the URL or as an option"},
    {"WRONGPASS", HF_EACCES, 0, "user name or password is wrong, or the user is switched off"},
    {"NOPERM", HF_EACCES, 0,
     "the user may not do this: let it have +@read +@write +@scripting +@connection +@pubsub "
     "+info +time, in a cluster +cluster|slots, on the prefix's keys and channels (ACL SETUSER)"},
    {"DENIED", HF_EACCES, 0,
     "it is in protected mode, and serves only its own machine: give it a password, or see "
     "protected-mode in its configuration"},
    {"LOADING", HF_EUNAVAIL, HF_RETRYABLE, "it is still loading its data: wait"},
    {"BUSY", HF_EBUSY, HF_RETRYABLE,
     "a script of somebody else has been running for long: see SLOWLOG, and SCRIPT KILL"},
    {"OOM", HF_EFULL, HF_RETRYABLE,
     "its memory is full: raise maxmemory, or remove data that has no expiry"},
    {"MISCONF", HF_EFULL, HF_RETRYABLE,
     "it cannot save its data and therefore refuses writes: look at its disk and its log"},
    {"READONLY", HF_EREADONLY, HF_RETRYABLE,
     "it is a read-only replica: connect to the master, or through Sentinel"},
    {"MASTERDOWN", HF_EUNAVAIL, HF_RETRYABLE, "it is a replica that has lost its master"},
    {"NOREPLICAS", HF_EUNAVAIL, HF_RETRYABLE,
     "too few of its replicas are connected (min-replicas-to-write)"},
    {"CLUSTERDOWN", HF_EUNAVAIL, HF_RETRYABLE,
     "the cluster is down, or a slot of it has no server: see CLUSTER INFO"},
    {"TRYAGAIN", HF_EUNAVAIL, HF_RETRYABLE, "the slot is being moved: the next try may succeed"},
    {"MOVED", HF_EUNAVAIL, HF_RETRYABLE,
     "the slot moves about, or this is a cluster: its URL begins with \"redis+cluster://\""},
    {"ASK", HF_EUNAVAIL, HF_RETRYABLE, "the slot is being moved: the next try may succeed"},
    {"CROSSSLOT", HF_ENOTSUP, 0,
     "keys of one operation lie in different slots of a cluster: give them one hash tag"},
    {"WRONGTYPE", HF_ETYPE, 0,
     "a key holds other data than Holdfast's: choose another prefix, or another key"},
    {"NOSCRIPT", HF_EUNAVAIL, HF_RETRYABLE,
     "it forgets scripts at once: does somebody call SCRIPT FLUSH all the time?"},
};

bool hf__redis_begins(hf_slice text, const char *prefix) {
    size_t len = strlen(prefix);
    return text.len >= len && memcmp(text.data, prefix, len) == 0 &&
           (text.len == len || text.data[len] == ' ');
}

static bool contains(hf_slice text, const char *part) {
    return memmem(text.data, text.len, part, strlen(part)) != NULL;
}

/* Redis 6 wraps what stopped a script: "ERR Error running script (...): ...: WRONGTYPE ...". */
static const meaning *find(hf_slice text) {
    bool wrapped = hf__redis_begins(text, "ERR") && contains(text, "Error running script");

    /* What a user may not do from within a script, as Redis 7 and Valkey 8 say it. */
    if (hf__redis_begins(text, "ERR") && (contains(text, "The user executing the script") ||
                                          contains(text, "ACL failure in script")))
        text = (hf_slice){"NOPERM", 6};
    for (size_t i = 0; i < sizeof meanings / sizeof meanings[0]; i++) {
        const char *prefix = meanings[i].prefix;
        if (wrapped ? contains(text, prefix) : hf__redis_begins(text, prefix)) return &meanings[i];
    }
    return NULL;
}

/* Errors whose prefix is only "ERR". */
static const meaning *find_general(hf_slice text) {
    static const meaning clients = {"", HF_EUNAVAIL, HF_RETRYABLE,
                                    "raise its maxclients, or find who opens so many connections"};
    static const meaning unknown = {"", HF_ENOTSUP, 0,
                                    "it lacks a command: Redis 6.2 or Valkey 7.2 is the least"};
    static const meaning cluster = {"", HF_ENOTSUP, 0,
                                    "it is no cluster: its URL begins with \"redis://\""};
    /* What the script had done before stays done. */
    static const meaning moving = {"", HF_EUNAVAIL, HF_RETRYABLE | HF_OUTCOME_UNKNOWN,
                                   "the slot is being moved: the next try may succeed"};
    static const meaning database = {"", HF_EINVAL, 0,
                                     "it has fewer databases (see `databases` in its "
                                     "configuration): another db, or none"};
    static const meaning other = {"", HF_EPROTO, 0, NULL};

    if (contains(text, "DB index is out of range")) return &database;
    if (contains(text, "max number of clients")) return &clients;
    if (contains(text, "non local key")) return &moving;
    if (contains(text, "cluster support disabled")) return &cluster;
    if (contains(text, "unknown command")) return &unknown;
    return &other;
}

void hf__redis_error(hf_error *error, hf_slice text, const char *server) {
    const meaning *m = find(text);
    const char *blank = memchr(text.data, ' ', text.len);
    size_t prefix = blank == NULL ? text.len : (size_t)(blank - text.data);
    int shown = text.len > 96 ? 96 : (int)text.len;

    if (m == NULL) m = find_general(text);
    if (m->advice != NULL && m->prefix[0] != '\0')
        hf__error_set(error, m->code, m->flags, "the server %s answered %s: %s", server, m->prefix,
                      m->advice);
    else if (m->advice != NULL)
        hf__error_set(error, m->code, m->flags, "the server %s answered \"%.*s\": %s", server,
                      shown, text.data, m->advice);
    else
        hf__error_set(error, m->code, m->flags, "the server %s answered \"%.*s\"", server, shown,
                      text.data);
    if (prefix < sizeof error->state) memcpy(error->state, text.data, prefix);
}

void hf__redis_error_auth(hf_error *error, hf_slice text, const char *server) {
    const char *why = "in words that are not shown, for they may repeat it";

    hf__redis_error(error, text, server);
    if (find(text) != NULL || contains(text, "max number of clients")) return;
    if (contains(text, "without any password"))
        why = "it has none: leave the password out, or set one there (requirepass, ACL SETUSER)";
    else if (contains(text, "wrong number of arguments"))
        why = "it knows no user names: Redis has them from 6.0 on";
    else if (contains(text, "unknown command"))
        why = "it does not know AUTH: is it a Redis, and has the command been renamed?";
    hf__error_set(error, HF_EACCES, 0, "the server %s refused the password: %s", server, why);
}

bool hf__redis_error_is(const hf_error *error, const char *prefix) {
    size_t len = strlen(prefix);

    return len < sizeof error->state && strcmp(error->state, prefix) == 0;
}

void hf__redis_unreachable(hf_error *error, const char *server, const char *why) {
    hf__error_set(error, HF_EUNAVAIL, HF_RETRYABLE, "could not reach the server %s: %s", server,
                  why);
}
