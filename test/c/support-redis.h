/*
 * A real Redis server for a test program: started when it is first asked for, on a free port of
 * the loopback, and gone with the program however that ends. HF_REDIS_SERVER names another binary
 * than redis-server, such as valkey-server. Main thread.
 *
 * Its clock can be set: a library loaded into it (preload-clock.c) answers for the system's.
 */
#ifndef HF_TEST_SUPPORT_REDIS_H
#define HF_TEST_SUPPORT_REDIS_H

#include "holdfast.h"

#include <stdbool.h>

/* From now on the server is asked for by way of a Sentinel. */
void redis_through_sentinel(void);
/* The port of the server; the test is skipped where there is no such program. */
uint16_t redis_port(void);
/* Writes "redis://127.0.0.1:PORT", or "redis+cluster://...", of a server that is empty. */
void redis_fresh(char *url, size_t size);
/* The server is a Cluster of so many nodes, 1 to 3. Before all else. The clock of more than one
 * must not be set: each would take the others for dead. */
void redis_as_cluster(size_t nodes);
/* So many servers, 1 to 3, that know nothing of each other: a quorum. Before all else. */
void redis_as_quorum(size_t nodes);
/* Ends it with SIGKILL and starts another on the same port: with its data, or without. */
void redis_restart(bool with_data);
/* Stops it where it stands (SIGSTOP), or lets it go on. */
void redis_freeze(bool frozen);
/* Starts a replica of it, and waits until it follows; or ends it. The clock is the system's. */
void redis_replica(bool on);
/* From now on the server's clock stands at this instant; 0: it is the system's again. */
void redis_set_clock(uint64_t real_us);

/* The same of one of several, from 0. */
void redis_set_clock_at(size_t number, uint64_t real_us);

/* Sends a command whose words have no blanks in them, and gives the answer as text, which is good
 * until the next: "OK", "7", "(nil)", "(error) ...", those of an array in a line each. */
const char *redis_do(const char *words);
/* The same of one of a cluster's nodes, from 0. */
const char *redis_do_at(size_t node, const char *words);
/* The same, of words with anything in them. */
const char *redis_command(const hf_slice *words, size_t n);
#define CHECK_REDIS(words, expected) CHECK_STR(redis_do(words), expected)
/* How often a command was carried out since CONFIG RESETSTAT, in scripts or not. */
long redis_count(const char *command);

#endif
