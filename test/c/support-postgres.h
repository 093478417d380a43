/*
 * A real PostgreSQL server for a test program: started when it is first asked for, on a free port
 * of the loopback, and gone with the program however that ends. HF_PG_BIN names another folder of
 * programs than that of the newest server of the system, or else of script/servers. Main thread.
 *
 * Its clock can be set: a library loaded into it (preload-clock.c) answers for the system's.
 */
#ifndef HF_TEST_SUPPORT_POSTGRES_H
#define HF_TEST_SUPPORT_POSTGRES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The port of the server; the test is skipped where there is none on this machine. */
uint16_t postgres_port(void);
/* From now on the server is asked for by way of a pooler that lends its connections for each
 * transaction; the test is skipped where there is no pgbouncer. */
void postgres_through_pooler(void);
/* Writes the URL of a store that is new and empty: a schema of its own. */
void postgres_fresh(char *url, size_t size);
/* From now on the server's clock stands at this instant; 0: it is the system's again. */
void postgres_set_clock(uint64_t real_us);
/* Ends it, in order or as a crash does, and starts it again with what it has. */
void postgres_restart(bool crash);
/* A cold copy of all that it has; and back to that. */
void postgres_save(const char *url);
void postgres_restore(const char *url);
/* Runs SQL on a connection of the tests' own; gives the first field of the first row, good until
 * the next; "" if there is none. A failure is a failed check. */
const char *postgres_do(const char *sql);

#endif
