/*
 * What runs inside the Redis server: the files of csrc/store/redis, written into redis-scripts.c by
 * script/embed.js. Each file says what it is given and what it answers.
 */
#ifndef HF_STORE_REDIS_SCRIPTS_H
#define HF_STORE_REDIS_SCRIPTS_H

#define HF__REDIS_SCRIPTS(X) \
    X(add)                   \
    X(del)                   \
    X(drop)                  \
    X(get)                   \
    X(holders)               \
    X(keep)                  \
    X(mark)                  \
    X(put)                   \
    X(raise)                 \
    X(renew)                 \
    X(scan)                  \
    X(take)                  \
    X(vote)

enum {
#define X(name) HF__LUA_##name,
    HF__REDIS_SCRIPTS(X)
#undef X
        HF__LUA_COUNT
};

#define X(name) extern const char hf__redis_lua_##name[];
HF__REDIS_SCRIPTS(X)
#undef X

#endif
