/*
 * What a Redis server's error replies mean to a user. Any thread.
 */
#ifndef HF_DRIVER_REDIS_ERROR_H
#define HF_DRIVER_REDIS_ERROR_H

#include "core/error.h"

/* `text` is the error as it came, without the dash; `server` is named in the message. The prefix
 * ("READONLY") is left in error->state. */
void hf__redis_error(hf_error *error, hf_slice text, const char *server);
/* The same of a refused AUTH, whose own words are not shown: they may repeat what was sent. */
void hf__redis_error_auth(hf_error *error, hf_slice text, const char *server);
/* Whether the first word of `text` is this. */
bool hf__redis_begins(hf_slice text, const char *word);
/* Whether error->state is `prefix`. */
bool hf__redis_error_is(const hf_error *error, const char *prefix);
/* HF_EUNAVAIL, HF_RETRYABLE, with "could not reach the server NAME: WHY". */
void hf__redis_unreachable(hf_error *error, const char *server, const char *why);

#endif
