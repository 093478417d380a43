/*
 * What the file holds.
 *
 * meta: one row. `counter` is the last fence or version given out, one series for all keys: SQLite
 * has one writer at a time anyway, and a counter per key would cost a row, a statement and a dirty
 * page with every take, and would have to be kept for a day and then swept. So fences of a key
 * always grow, and versions never repeat, also after deletion. `boot` is the boot id that `epoch`
 * stands for: whoever finds another one there takes the next epoch, forgets all leases, and sets
 * the counter to the clock's microseconds if those are more (design section 5, rule 4). `version`
 * is the schema's, read with every transaction, so that a process which runs while a newer one
 * migrates the file notices.
 *
 * lease: one row per holder and key, of the present boot only. `until` is in nanoseconds of the
 * clock that counts from boot. `slots` is the holder's limit, 0 for the intent mark of a waiter.
 * `n_keys` is how many keys were taken together; where that is 0 too, the row is a note that an
 * instance waits for the key, and the token is the instance's. Rows lie in the order in which they
 * came, so that those that are renewed together share pages, whatever their keys: with rows in the
 * order of keys a hundred thousand renewals cost three times as much. (Files that 0.1.0 made have
 * that order, and the same columns.) There is no index on `until`: rows that lapse are removed by
 * the next take of their key or by a sweep, which looks at all: they are few, and every other
 * statement would pay for the index.
 *
 * entry: one row per value or record (`space`), also after its deletion while its fence is
 * remembered. `state` is 0 a value or a finished record, 1 a claim, 2 a tombstone. A claim's
 * `claim_until` counts from the boot of `epoch`; of another epoch it is past. `kept_until` is in
 * microseconds of real time, NULL for ever; it is indexed for the sweep, which beside the sync of
 * an entry's commit costs nothing. An expired row that remembers a fence is swept in two steps: to
 * a tombstone, and away a day later. `value` comes last: it is often large, and what stands behind
 * it would be slow to reach.
 *
 * Keys are text in memcmp order, tokens 16 bytes.
 */
#include "store/sqlite-store.h"

const char *const hf__sqlite_schema[HF__SQLITE_VERSION] = {
    "CREATE TABLE meta ("
    " one INTEGER PRIMARY KEY CHECK (one = 1), version INTEGER NOT NULL,"
    " counter INTEGER NOT NULL, epoch INTEGER NOT NULL, boot TEXT NOT NULL);"
    "INSERT INTO meta VALUES (1, 1, 0, 0, '');"
    "CREATE TABLE lease ("
    " id INTEGER PRIMARY KEY, key TEXT NOT NULL, token BLOB NOT NULL,"
    " until INTEGER NOT NULL, slots INTEGER NOT NULL,"
    " fence INTEGER NOT NULL, since INTEGER NOT NULL, n_keys INTEGER NOT NULL,"
    " who TEXT NOT NULL, note TEXT NOT NULL);"
    "CREATE UNIQUE INDEX lease_of ON lease (key, token);"
    "CREATE TABLE entry ("
    " space INTEGER NOT NULL, key TEXT NOT NULL, state INTEGER NOT NULL, format INTEGER NOT NULL,"
    " version INTEGER NOT NULL, token BLOB NOT NULL, attempt INTEGER NOT NULL,"
    " claim_until INTEGER NOT NULL, epoch INTEGER NOT NULL, kept_until INTEGER,"
    " stored INTEGER NOT NULL, fence INTEGER NOT NULL, fence_key TEXT NOT NULL, value BLOB,"
    " PRIMARY KEY (space, key)) WITHOUT ROWID;"
    "CREATE INDEX entry_kept_until ON entry (kept_until) WHERE kept_until IS NOT NULL;",
};

#define LEASE_COLUMNS "key, token, until, slots, fence, since, n_keys, who, note"

/* In the order of HF__SQLITE_STATEMENTS. */
const char *const hf__sqlite_sql[HF__ST_COUNT] = {
    [HF__ST_META_GET] = "SELECT version, counter, epoch, boot FROM meta WHERE one = 1",
    [HF__ST_META_SET] = "UPDATE meta SET counter = ?1, epoch = ?2, boot = ?3 WHERE one = 1",

    [HF__ST_LEASE_CLEAR] = "DELETE FROM lease",
    [HF__ST_LEASE_OF_KEY] = "SELECT " LEASE_COLUMNS " FROM lease WHERE key = ?1",
    [HF__ST_LEASE_PUT] = "INSERT OR REPLACE INTO lease (" LEASE_COLUMNS ")"
                         " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    [HF__ST_LEASE_OWNED] = "SELECT 1 FROM lease"
                           " WHERE key = ?1 AND token = ?2 AND until > ?3 AND slots > 0",
    [HF__ST_LEASE_RENEW] = "UPDATE lease SET until = ?4"
                           " WHERE key = ?1 AND token = ?2 AND until > ?3 AND slots > 0",
    [HF__ST_LEASE_LENGTHEN] = "UPDATE lease SET until = max(until, ?4)"
                              " WHERE key = ?1 AND token = ?2 AND until > ?3 AND slots > 0",
    [HF__ST_LEASE_DROP] = "DELETE FROM lease"
                          " WHERE key = ?1 AND token = ?2 AND until > ?3 AND slots > 0",
    [HF__ST_LEASE_REMOVE] = "DELETE FROM lease WHERE key = ?1 AND token = ?2",
    [HF__ST_LEASE_REMOVE_LAPSED] = "DELETE FROM lease WHERE key = ?1 AND until <= ?2",
    [HF__ST_LEASE_COUNT_TOKEN] = "SELECT count(*) FROM lease"
                                 " WHERE token = ?1 AND until > ?2 AND slots > 0",
    [HF__ST_LEASE_LIST] = "SELECT " LEASE_COLUMNS " FROM lease"
                          " WHERE key >= ?1 AND until > ?2 AND slots > 0 ORDER BY key",
    [HF__ST_LEASE_COUNT_KEY] = "SELECT count(*) FROM lease"
                               " WHERE key = ?1 AND until > ?2 AND slots > 0",
    [HF__ST_LEASE_SWEEP] = "DELETE FROM lease WHERE (key, token) IN"
                           " (SELECT key, token FROM lease WHERE until <= ?1 LIMIT ?2)",

    [HF__ST_ENTRY_GET] = "SELECT state, format, version, token, attempt, claim_until, epoch,"
                         " kept_until, stored, fence, fence_key"
                         " FROM entry WHERE space = ?1 AND key = ?2",
    [HF__ST_ENTRY_VALUE] = "SELECT value FROM entry WHERE space = ?1 AND key = ?2",
    [HF__ST_ENTRY_PUT] =
        "INSERT OR REPLACE INTO entry (space, key, state, format, version, token,"
        " attempt, claim_until, epoch, kept_until, stored, fence, fence_key, value)"
        " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
    [HF__ST_ENTRY_REMOVE] = "DELETE FROM entry WHERE space = ?1 AND key = ?2",
    [HF__ST_ENTRY_RENEW] = "UPDATE entry SET claim_until = ?6 WHERE space = ?1 AND key = ?2"
                           " AND token = ?3 AND state = 1 AND claim_until > ?4 AND epoch = ?5"
                           " AND (kept_until IS NULL OR kept_until > ?7)",
    [HF__ST_ENTRY_BURY] = "UPDATE entry SET state = 2, value = NULL,"
                          " kept_until = kept_until + 1000 * ?3 WHERE (space, key) IN"
                          " (SELECT space, key FROM entry WHERE kept_until <= ?1 AND state <> 2"
                          " AND fence_key <> '' LIMIT ?2)",
    [HF__ST_ENTRY_SWEEP] = "DELETE FROM entry WHERE (space, key) IN"
                           " (SELECT space, key FROM entry WHERE kept_until <= ?1"
                           " AND (state = 2 OR fence_key = '') LIMIT ?2)",
};
