/*
 * What the PostgreSQL store keeps in the database, and what it does there. The client sends a batch
 * of ops as arrays to one function, and gets a row for each: one round trip, one commit.
 *
 * The file may be run again at any time, and by several at once, in one transaction. Whoever wants
 * another schema replaces the word before the dot.
 *
 * Locks. Whatever happens to a key's leases happens under the lock of its row in `key`, and
 * whatever happens to an entry under the lock of the entry. A batch locks the keys of all its ops
 * at once, in order of key, so that batches wait for each other but never in a circle. It relies on
 * READ COMMITTED: a statement that begins when the lock is had sees all that was done before. Rows
 * of entries are another matter, since a user's own transaction may hold one for long: nobody waits
 * for those but finish_record. What a batch waits for is the insert of the same absent entry, and
 * those are made in order, too.
 *
 * Time is the server's clock in microseconds, read anew with clock_timestamp().
 *
 * Plans. The settings of the functions make every plan a generic one that goes by the indexes: a
 * plan made while a table was small would be kept by a session when it has grown.
 */
DO $$ BEGIN
    PERFORM pg_advisory_xact_lock(5217406914731044964); -- any number that is nobody else's
END $$;

CREATE SCHEMA IF NOT EXISTS holdfast;

CREATE TABLE IF NOT EXISTS holdfast.meta (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    version integer NOT NULL
);

/*
 * One row, whose id stands for as long as the database cannot have lost or rewound its memory; then
 * there is another, and what counts is set to the clock (design section 5, rule 4). Crash recovery
 * empties an unlogged table, and so does failover. To put back a copy of the files needs a start of
 * the server. A row that was dumped and restored was not written by the transaction that it names,
 * and in a copy made by CREATE DATABASE the table lies elsewhere.
 */
CREATE UNLOGGED TABLE IF NOT EXISTS holdfast.epoch (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    id bigint NOT NULL,
    started timestamptz NOT NULL,
    born xid NOT NULL,
    place text NOT NULL
);

/*
 * One row for each key that has been taken within the last day: its fence counter, and its
 * exclusive holder (until_us 0: there is none), whose fence the counter is. An exclusive lease is
 * alone on its key, so it needs no row of its own: to take, keep and drop it is an update within
 * the page, which touches no index and leaves nothing for vacuum. For the same reason until_us is
 * not indexed: `sweep_at` is, a time before which there is nothing to sweep, which a take lowers
 * only after a sweep has raised it. `idle` is the counter that a sweep found with nobody there: if
 * it finds the same a day later the row may go. `crowded` says that `lease` may have rows of the
 * key.
 */
CREATE TABLE IF NOT EXISTS holdfast.key (
    key bytea PRIMARY KEY,
    counter bigint NOT NULL,
    epoch bigint NOT NULL,
    sweep_at bigint NOT NULL,
    idle bigint NOT NULL,
    until_us bigint NOT NULL,
    since_us bigint NOT NULL,
    n_keys integer NOT NULL,
    crowded boolean NOT NULL,
    token bytea NOT NULL,
    who bytea NOT NULL,
    note bytea NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX IF NOT EXISTS key_sweep_at ON holdfast.key (sweep_at);

/*
 * Who else is on a key: those who share it (`slots`, their limit), the intent marks of those who
 * wait (slots 0), and the notes that an instance waits (n_keys 0 too, and the token is the
 * instance's).
 */
CREATE TABLE IF NOT EXISTS holdfast.lease (
    key bytea NOT NULL,
    token bytea NOT NULL,
    until_us bigint NOT NULL,
    slots bigint NOT NULL,
    fence bigint NOT NULL,
    since_us bigint NOT NULL,
    n_keys integer NOT NULL,
    who bytea NOT NULL,
    note bytea NOT NULL,
    PRIMARY KEY (key, token)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);

/*
 * Values (space 1) and records (space 2), also after their deletion while a fence is remembered.
 * `state` is 0 a value or a finished record, 1 a claim, 2 a tombstone. kept_until_us NULL: for
 * ever. claim_until_us of a finished record: 0, or what it was when finish_record did that, which
 * its run may not know yet.
 */
CREATE TABLE IF NOT EXISTS holdfast.entry (
    space smallint NOT NULL,
    state smallint NOT NULL,
    format smallint NOT NULL,
    attempt bigint NOT NULL,
    version bigint NOT NULL,
    claim_until_us bigint NOT NULL,
    kept_until_us bigint,
    stored_us bigint NOT NULL,
    fence bigint NOT NULL,
    token bytea NOT NULL,
    key bytea NOT NULL,
    fence_key bytea NOT NULL,
    value bytea,
    PRIMARY KEY (space, key)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX IF NOT EXISTS entry_kept_until ON holdfast.entry (kept_until_us)
    WHERE kept_until_us IS NOT NULL;
CREATE SEQUENCE IF NOT EXISTS holdfast.version AS bigint MAXVALUE 9007199254740991;

/* Who wants to be told, and on which channel. What a crash forgets, a reconnect makes good. */
CREATE UNLOGGED TABLE IF NOT EXISTS holdfast.waiter (
    space smallint NOT NULL,
    key bytea NOT NULL,
    channel text NOT NULL,
    until_us bigint NOT NULL,
    PRIMARY KEY (space, key, channel)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);

/* ---------------------------------------------------------------- what they share */

/* Several may notice at once that the epoch has changed: the first inserts, the others wait for it
 * and find its id. */
CREATE OR REPLACE FUNCTION holdfast.next_epoch() RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    present bigint;
BEGIN
    INSERT INTO holdfast.epoch AS e (id, started, born, place)
    VALUES (('x' || left(replace(gen_random_uuid()::text, '-', ''), 12))::bit(48)::bigint + 1,
            pg_postmaster_start_time(), pg_current_xact_id()::xid,
            pg_relation_filepath('holdfast.epoch'))
    ON CONFLICT (one) DO UPDATE
    SET id = excluded.id, started = excluded.started, born = excluded.born, place = excluded.place
    WHERE e.started <> excluded.started OR e.born <> e.xmin OR e.place <> excluded.place
    RETURNING e.id INTO present;
    IF FOUND THEN
        PERFORM setval('holdfast.version',
                       greatest(nextval('holdfast.version'),
                                (extract(epoch FROM clock_timestamp()) * 1000000)::bigint));
    ELSE
        SELECT e.id INTO STRICT present FROM holdfast.epoch AS e;
    END IF;
    RETURN present;
END $$;

/*
 * The first thing that a function does which writes. Gives the present epoch. What is acknowledged
 * must be on the disk, whatever the server's default; `relaxed` is the user's wish.
 */
CREATE OR REPLACE FUNCTION holdfast.enter(relaxed boolean) RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    present bigint;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'Holdfast needs transactions of isolation level read committed, not %',
            current_setting('transaction_isolation')
            USING ERRCODE = 'feature_not_supported',
                  HINT = 'Set default_transaction_isolation to ''read committed'' for its role.';
    END IF;
    IF relaxed THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    ELSIF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    SELECT e.id INTO present FROM holdfast.epoch AS e
    WHERE e.started = pg_postmaster_start_time() AND e.born = e.xmin
      AND e.place = pg_relation_filepath(e.tableoid);
    IF NOT FOUND THEN
        present := holdfast.next_epoch();
    END IF;
    RETURN present;
END $$;

/* Leaves the channel with the keys, under their locks. A row that lives until `needed` does. */
CREATE OR REPLACE FUNCTION holdfast.wait(place smallint, keys bytea[], channel text,
                                         needed bigint, at bigint) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
    INSERT INTO holdfast.waiter AS w (space, key, channel, until_us)
    SELECT wait.place, d.key, wait.channel, greatest(wait.needed, wait.at + 60000000)
    FROM unnest(wait.keys) AS d(key)
    WHERE NOT EXISTS (SELECT FROM holdfast.waiter AS o
                      WHERE o.space = wait.place AND o.key = d.key AND o.channel = wait.channel
                        AND o.until_us >= wait.needed)
    ON CONFLICT (space, key, channel) DO UPDATE SET until_us = excluded.until_us;
END $$;

/* Tells those who wait, once, when the transaction commits. */
CREATE OR REPLACE FUNCTION holdfast.tell(place smallint, keys bytea[]) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    w record;
BEGIN
    FOR w IN
        DELETE FROM holdfast.waiter AS o WHERE o.space = place AND o.key = ANY (keys)
        RETURNING o.channel, o.key
    LOOP
        PERFORM pg_notify(w.channel, place || encode(w.key, 'hex'));
    END LOOP;
END $$;

/* ---------------------------------------------------------------- leases */

/*
 * take (1), keep (2) and drop (3); `counts` says how many of `keys` belong to each op. To be
 * called alone in its transaction.
 *
 * Ops that ask for one key of which no other op of the batch knows are tried all in one statement
 * for each verb: an exclusive take of a key on which there is nobody, a keep or drop of an
 * exclusive lease. They have their keys to themselves, so it does not matter that they come before
 * the others, which then follow one by one. The statement for the takes is also the one that locks,
 * and makes the rows that are not there yet: a row on which a DO UPDATE does not want to act is
 * locked all the same.
 */
CREATE OR REPLACE FUNCTION holdfast.leases(
    verbs smallint[], tokens bytea[], counts integer[], keys bytea[], ttls bigint[],
    limits bigint[], flags integer[], replaces bytea[], whos bytea[], notes bytea[],
    instance bytea, channel text, relaxed boolean)
RETURNS TABLE(status smallint, fence bigint, left_ms bigint, awaited boolean, holder_token bytea,
              holder_fence bigint, holder_left_ms bigint, holder_since_us bigint,
              holder_limit bigint, holder_who bytea, holder_note bytea)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan SET jit = off
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
DECLARE
    greatest_fence CONSTANT bigint := 9007199254740991;
    longest_ms CONSTANT bigint := 4000000000000; -- so that no time reaches 2^53
    alone CONSTANT boolean := pg_current_xact_id_if_assigned() IS NULL;
    present CONSTANT bigint := holdfast.enter(relaxed);
    n CONSTANT integer := cardinality(verbs);
    one CONSTANT boolean := cardinality(keys) = 1;
    takes CONSTANT boolean := 1 = ANY (verbs);
    now_us bigint := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
    names bytea[];       -- the keys, each once, in order
    solo integer[];      -- of each the op that has it to itself and asks for nothing else, or 0
    done bigint[];       -- of each op: a take's fence, or 1
    won bytea[];
    fences bigint[];
    ops integer[];
    locked boolean := true;
    changed boolean := false;
    freed bytea[] := '{}';
    upto integer := 0;   -- how many of `keys` belong to this op and those before
    n_mine integer;
    mine bytea[];
    tok bytea;
    lim bigint;
    until bigint;
    look record;         -- at a key of a take
    next_fence bigint;
    own integer;         -- keys that the token holds already,
    own_fence bigint;    -- the newest of its fences there,
    own_until bigint;    -- and when the first of them lapses
    replaced integer;    -- keys that replace_token holds as it should
    holders bigint;      -- on one key, without those two
    fewest bigint;       -- the least of their limits and the op's
    first_us bigint;     -- when the first of them lapses
    way bytea;           -- a key that refuses,
    way_is_full boolean; -- and not only for a mark
    left_us bigint;
    noted bigint;        -- until when this instance is noted on all keys; 0: it is not
    litter boolean;      -- rows that go when the take is admitted
    sweep_at bigint;     -- the last of the keys'
    crowded boolean;     -- all of them
    mark_until bigint;
    note_until bigint;
    n_keys integer;
    n_rows integer;
BEGIN
    IF one THEN
        names := keys;
        solo := ARRAY[1];
    ELSE
        SELECT array_agg(t.key ORDER BY t.key), array_agg(t.op ORDER BY t.key)
        INTO names, solo
        FROM (SELECT u.key, bool_or(verbs[o.op] = 1) AS taken,
                     CASE WHEN count(*) = 1 AND min(o.n) = 1 THEN min(o.op)::integer ELSE 0 END
                         AS op
              FROM (SELECT c.op, c.n, (sum(c.n) OVER (ORDER BY c.op))::integer AS upto
                    FROM unnest(counts) WITH ORDINALITY AS c(n, op)) AS o,
                   unnest(keys[o.upto - o.n + 1:o.upto]) AS u(key)
              GROUP BY u.key) AS t
        LEFT JOIN holdfast.key AS e ON e.key = t.key
        -- A keep or drop makes no row.
        WHERE NOT takes OR t.taken OR e.key IS NOT NULL;
    END IF;
    done := array_fill(0::bigint, ARRAY[n]);

    -- A batch of one is common, and has a shorter way to the same.
    IF one AND takes AND limits[1] = 1 AND coalesce(replaces[1], '') = '' THEN
        until := now_us + least(ttls[1], longest_ms) * 1000;
        INSERT INTO holdfast.key AS k (key, counter, epoch, sweep_at, idle, until_us, since_us,
                                       n_keys, crowded, token, who, note)
        VALUES (keys[1], now_us, present, until, -1, until, now_us, 1, false, tokens[1], whos[1],
                notes[1])
        ON CONFLICT (key) DO UPDATE
        SET counter = CASE WHEN k.epoch = present THEN k.counter + 1
                           ELSE greatest(k.counter + 1, now_us) END,
            epoch = present, sweep_at = least(k.sweep_at, excluded.sweep_at),
            until_us = excluded.until_us, since_us = now_us, n_keys = 1, token = excluded.token,
            who = excluded.who, note = excluded.note
        WHERE k.until_us <= now_us AND NOT k.crowded AND k.counter < greatest_fence
        RETURNING k.counter INTO fence;
        changed := FOUND;
        done[1] := coalesce(fence, 0);
    ELSIF takes THEN
        WITH tried AS (
            INSERT INTO holdfast.key AS k (key, counter, epoch, sweep_at, idle, until_us, since_us,
                                           n_keys, crowded, token, who, note)
            SELECT d.key, CASE WHEN d.op > 0 THEN now_us ELSE 0 END,
                   CASE WHEN d.op > 0 THEN present ELSE 0 END, now_us + d.us, -1,
                   CASE WHEN d.op > 0 THEN now_us + d.us ELSE 0 END, now_us, 1, false,
                   coalesce(tokens[d.op], ''), coalesce(whos[d.op], ''), coalesce(notes[d.op], '')
            FROM (SELECT s.key, s.op,
                         CASE WHEN s.op > 0 THEN least(ttls[s.op], longest_ms) * 1000 ELSE 0 END
                             AS us
                  FROM (SELECT a.key,
                               CASE WHEN verbs[a.op] = 1 AND limits[a.op] = 1
                                         AND coalesce(replaces[a.op], '') = ''
                                    THEN a.op ELSE 0 END AS op
                        FROM unnest(names, solo) AS a(key, op)) AS s) AS d
            ORDER BY d.key
            ON CONFLICT (key) DO UPDATE
            SET counter = CASE WHEN k.epoch = present THEN k.counter + 1
                               ELSE greatest(k.counter + 1, now_us) END,
                epoch = present, sweep_at = least(k.sweep_at, excluded.sweep_at),
                until_us = excluded.until_us, since_us = now_us, n_keys = 1,
                token = excluded.token, who = excluded.who, note = excluded.note
            WHERE excluded.until_us > 0 AND k.until_us <= now_us AND NOT k.crowded
              AND k.counter < greatest_fence
            RETURNING k.key, k.counter, k.until_us)
        SELECT array_agg(t.key ORDER BY t.key), array_agg(t.counter ORDER BY t.key)
        INTO won, fences
        FROM tried AS t WHERE t.until_us > 0;
        n_keys := 1;
        FOR i IN 1 .. coalesce(cardinality(won), 0) LOOP
            WHILE names[n_keys] <> won[i] LOOP
                n_keys := n_keys + 1;
            END LOOP;
            done[solo[n_keys]] := fences[i];
        END LOOP;
        changed := won IS NOT NULL;
    ELSIF NOT one THEN
        PERFORM FROM holdfast.key AS k WHERE k.key = ANY (names) ORDER BY k.key FOR NO KEY UPDATE;
    ELSE
        locked := false; -- the one update will do that
    END IF;

    -- What is judged is judged by a time at which the locks are had.
    now_us := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
    IF one AND verbs[1] = 2 THEN
        UPDATE holdfast.key AS k SET until_us = now_us + least(ttls[1], longest_ms) * 1000
        WHERE k.key = keys[1] AND k.token = tokens[1] AND k.until_us > now_us;
        changed := FOUND;
        done[1] := changed::integer;
    ELSIF 2 = ANY (verbs) THEN
        WITH kept AS (
            UPDATE holdfast.key AS k SET until_us = now_us + least(ttls[d.op], longest_ms) * 1000
            FROM unnest(names, solo) AS d(key, op)
            WHERE d.op > 0 AND verbs[d.op] = 2 AND k.key = d.key AND k.token = tokens[d.op]
              AND k.until_us > now_us
            RETURNING d.op)
        SELECT array_agg(t.op) INTO ops FROM kept AS t;
        FOR i IN 1 .. coalesce(cardinality(ops), 0) LOOP
            done[ops[i]] := 1;
        END LOOP;
        changed := changed OR ops IS NOT NULL;
    END IF;
    IF one AND verbs[1] = 3 THEN
        UPDATE holdfast.key AS k SET until_us = 0, n_keys = 0, token = '', who = '', note = ''
        WHERE k.key = keys[1] AND k.token = tokens[1] AND k.until_us > now_us;
        IF FOUND THEN
            changed := true;
            done[1] := 1;
            freed := keys;
        END IF;
    ELSIF 3 = ANY (verbs) THEN
        WITH dropped AS (
            UPDATE holdfast.key AS k
            SET until_us = 0, n_keys = 0, token = '', who = '', note = ''
            FROM unnest(names, solo) AS d(key, op)
            WHERE d.op > 0 AND verbs[d.op] = 3 AND k.key = d.key AND k.token = tokens[d.op]
              AND k.until_us > now_us
            RETURNING d.op, d.key)
        SELECT array_agg(t.op), array_agg(t.key) INTO ops, won FROM dropped AS t;
        FOR i IN 1 .. coalesce(cardinality(ops), 0) LOOP
            done[ops[i]] := 1;
        END LOOP;
        changed := changed OR ops IS NOT NULL;
        freed := freed || won;
    END IF;

    FOR i IN 1 .. n LOOP
        status := 0;
        fence := 0;
        left_ms := 0;
        awaited := false;
        IF i = 1 OR holder_token IS NOT NULL THEN
            holder_token := NULL;
            holder_fence := 0;
            holder_left_ms := 0;
            holder_since_us := 0;
            holder_limit := 0;
            holder_who := NULL;
            holder_note := NULL;
        END IF;
        n_mine := counts[i];
        upto := upto + n_mine;
        IF done[i] > 0 THEN
            IF verbs[i] = 1 THEN
                fence := done[i];
            END IF;
            RETURN NEXT;
            CONTINUE;
        END IF;
        mine := keys[upto - n_mine + 1:upto];
        tok := tokens[i];
        IF NOT locked THEN
            PERFORM FROM holdfast.key AS k WHERE k.key = mine[1] FOR NO KEY UPDATE;
            now_us := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
        END IF;
        until := now_us + least(ttls[i], longest_ms) * 1000;

        IF verbs[i] = 2 THEN
            SELECT (SELECT count(*) FROM holdfast.key AS k
                    WHERE k.key = ANY (mine) AND k.token = tok AND k.until_us > now_us),
                   (SELECT count(*) FROM holdfast.lease AS l
                    WHERE l.key = ANY (mine) AND l.token = tok AND l.until_us > now_us
                      AND l.slots > 0)
            INTO n_keys, n_rows;
            IF n_keys + n_rows < n_mine THEN
                status := 2;
            ELSE
                changed := true;
                IF n_keys > 0 THEN
                    UPDATE holdfast.key AS k SET until_us = until
                    WHERE k.key = ANY (mine) AND k.token = tok AND k.until_us > now_us;
                END IF;
                IF n_rows > 0 THEN
                    UPDATE holdfast.lease AS l SET until_us = until
                    WHERE l.key = ANY (mine) AND l.token = tok AND l.until_us > now_us
                      AND l.slots > 0;
                END IF;
            END IF;
            RETURN NEXT;
            CONTINUE;
        END IF;

        IF verbs[i] = 3 THEN
            WITH dropped AS (
                UPDATE holdfast.key AS k
                SET until_us = 0, n_keys = 0, token = '', who = '', note = ''
                WHERE k.key = ANY (mine) AND k.token = tok AND k.until_us > now_us
                RETURNING k.key)
            SELECT count(*), array_agg(t.key) INTO n_keys, won FROM dropped AS t;
            freed := freed || won;
            changed := changed OR n_keys > 0;
            IF n_keys < n_mine THEN
                -- Shared ones, a mark, or what has lapsed.
                WITH dropped AS (
                    DELETE FROM holdfast.lease AS l WHERE l.key = ANY (mine) AND l.token = tok
                    RETURNING l.key, l.slots, l.until_us > now_us AS live)
                SELECT count(*) FILTER (WHERE t.live AND t.slots > 0),
                       array_agg(t.key) FILTER (WHERE t.live)
                INTO n_rows, won FROM dropped AS t;
                freed := freed || won;
                changed := changed OR won IS NOT NULL;
                IF n_keys + n_rows < n_mine THEN
                    status := 2;
                END IF;
            END IF;
            RETURN NEXT;
            CONTINUE;
        END IF;

        -- A take: look at all its keys first.
        lim := limits[i];
        own := 0;
        own_fence := 0;
        own_until := NULL;
        replaced := 0;
        way := NULL;
        way_is_full := false;
        left_us := NULL;
        noted := NULL;
        litter := false;
        sweep_at := 0;
        crowded := true;
        FOR look IN
            SELECT d.key, k.counter, k.epoch, k.sweep_at, k.until_us, k.n_keys, k.crowded, k.token,
                   o.*
            FROM unnest(mine) WITH ORDINALITY AS d(key, nth)
            JOIN holdfast.key AS k ON k.key = d.key
            CROSS JOIN LATERAL (
                SELECT bool_or(r.kind IN (0, 1, 3)) AS litter,
                       max(r.until_us) FILTER (WHERE r.kind = 1) AS noted,
                       bool_or(r.kind = 2) AS awaited,
                       min(r.until_us) FILTER (WHERE r.kind = 4) AS mark_until,
                       max(r.fence) FILTER (WHERE r.kind = 5) AS own_fence,
                       min(r.until_us) FILTER (WHERE r.kind = 5) AS own_until,
                       count(*) FILTER (WHERE r.kind = 6) AS holders,
                       min(r.slots) FILTER (WHERE r.kind = 6) AS fewest,
                       min(r.until_us) FILTER (WHERE r.kind = 6) AS first_us
                FROM (SELECT l.until_us, l.slots, l.fence,
                             CASE WHEN l.until_us <= now_us THEN 0
                                  WHEN l.slots = 0 AND l.n_keys = 0 AND l.token = instance THEN 1
                                  WHEN l.slots = 0 AND l.n_keys = 0 THEN 2
                                  WHEN l.slots = 0 AND l.token = tok THEN 3
                                  WHEN l.slots = 0 THEN 4
                                  WHEN l.token = tok THEN 5
                                  ELSE 6 END AS kind
                      FROM holdfast.lease AS l WHERE k.crowded AND l.key = d.key OFFSET 0) AS r)
                AS o
            ORDER BY d.nth
        LOOP
            next_fence := look.counter + 1;
            IF look.epoch <> present AND next_fence < now_us THEN
                next_fence := now_us;
            END IF;
            IF next_fence > fence THEN
                fence := next_fence;
            END IF;
            sweep_at := greatest(sweep_at, look.sweep_at);
            holders := look.holders;
            fewest := least(lim, look.fewest);
            first_us := look.first_us;
            IF look.until_us > now_us THEN
                IF look.token = tok THEN
                    own := own + 1;
                    own_fence := greatest(own_fence, look.counter);
                    own_until := least(own_until, look.until_us);
                ELSIF look.token = replaces[i] THEN
                    -- Exactly these keys: as many, and all of them.
                    replaced := replaced + (look.n_keys = n_mine)::integer;
                ELSE
                    holders := holders + 1;
                    fewest := 1;
                    first_us := least(first_us, look.until_us);
                END IF;
            END IF;
            IF look.crowded THEN
                litter := litter OR look.litter IS TRUE;
                awaited := awaited OR look.awaited IS TRUE;
                IF look.own_fence IS NOT NULL THEN
                    own := own + 1;
                    own_fence := greatest(own_fence, look.own_fence);
                    own_until := least(own_until, look.own_until);
                END IF;
                IF lim > 1 AND look.mark_until IS NOT NULL THEN
                    way := coalesce(way, look.key);
                    left_us := least(left_us, look.mark_until - now_us);
                END IF;
            ELSE
                crowded := false;
            END IF;
            noted := least(noted, coalesce(look.noted, 0));
            IF holders + 1 > fewest THEN
                IF NOT way_is_full THEN
                    way := look.key;
                    way_is_full := true;
                END IF;
                left_us := least(left_us, first_us - now_us);
            END IF;
        END LOOP;

        IF own = n_mine THEN
            -- It was answered before, and the answer may have been lost: it is the same lease.
            fence := own_fence;
            IF own_until < until THEN
                changed := true;
                UPDATE holdfast.key AS k SET until_us = until
                WHERE k.key = ANY (mine) AND k.token = tok AND k.until_us > now_us
                  AND k.until_us < until;
                UPDATE holdfast.lease AS l SET until_us = until
                WHERE l.key = ANY (mine) AND l.token = tok AND l.slots > 0 AND l.until_us > now_us
                  AND l.until_us < until;
            END IF;
        ELSIF own > 0 THEN
            status := -1;
        ELSIF replaces[i] <> '' AND (lim > 1 OR replaced < n_mine) THEN
            status := 2;
        ELSIF replaces[i] <> '' OR way IS NULL THEN
            IF fence > greatest_fence THEN
                status := -2;
            ELSE
                changed := true;
                IF litter THEN
                    -- Also its own mark, and the note of its instance.
                    DELETE FROM holdfast.lease AS l
                    WHERE l.key = ANY (mine)
                      AND (l.until_us <= now_us OR l.token = tok OR l.token = instance);
                END IF;
                IF lim = 1 THEN
                    UPDATE holdfast.key AS k
                    SET counter = leases.fence, epoch = present,
                        sweep_at = least(k.sweep_at, until), until_us = until, since_us = now_us,
                        n_keys = n_mine, token = tok, who = whos[i], note = notes[i],
                        crowded = k.crowded
                            AND coalesce((SELECT true FROM holdfast.lease AS l
                                          WHERE l.key = k.key LIMIT 1), false)
                    WHERE k.key = ANY (mine);
                ELSE
                    UPDATE holdfast.key AS k
                    SET counter = leases.fence, epoch = present,
                        sweep_at = least(k.sweep_at, until), until_us = 0, n_keys = 0, token = '',
                        who = '', note = '', crowded = true
                    WHERE k.key = ANY (mine);
                    INSERT INTO holdfast.lease (key, token, until_us, slots, fence, since_us,
                                                n_keys, who, note)
                    SELECT d.key, tok, until, lim, leases.fence, now_us, n_mine, whos[i], notes[i]
                    FROM unnest(mine) AS d(key);
                END IF;
                IF replaces[i] <> '' THEN
                    freed := freed || mine;
                END IF;
            END IF;
        ELSE
            status := 1;
            left_ms := (left_us + 999) / 1000;
            mark_until := NULL;
            note_until := NULL;
            IF flags[i] & 1 <> 0 AND lim = 1 THEN
                mark_until := now_us + least(ttls[i], 2000) * 1000;
            END IF;
            -- Anew only when half of the time has gone by: on a busy key most refusals write
            -- nothing.
            IF flags[i] & 64 <> 0 AND noted < now_us + left_us / 2 THEN
                note_until := now_us + left_us;
            END IF;
            IF mark_until IS NOT NULL OR note_until IS NOT NULL THEN
                INSERT INTO holdfast.lease AS l (key, token, until_us, slots, fence, since_us,
                                                 n_keys, who, note)
                SELECT d.key, m.token, m.until_us, 0, 0, now_us, m.n_keys, m.who, m.note
                FROM unnest(mine) AS d(key),
                     (VALUES (tok, mark_until, n_mine, whos[i], notes[i]),
                             (instance, note_until, 0, ''::bytea, ''::bytea))
                     AS m(token, until_us, n_keys, who, note)
                WHERE m.until_us IS NOT NULL
                ON CONFLICT (key, token) DO UPDATE
                SET until_us = excluded.until_us, slots = 0, fence = 0,
                    since_us = excluded.since_us, n_keys = excluded.n_keys, who = excluded.who,
                    note = excluded.note;
                IF NOT crowded OR sweep_at > least(mark_until, note_until) THEN
                    UPDATE holdfast.key AS k
                    SET crowded = true, idle = -1,
                        sweep_at = least(k.sweep_at, mark_until, note_until)
                    WHERE k.key = ANY (mine)
                      AND (NOT k.crowded OR k.sweep_at > least(mark_until, note_until));
                END IF;
            END IF;
            IF flags[i] & 131072 <> 0 THEN
                SELECT h.token, h.fence, (h.until_us - now_us + 999) / 1000, h.since_us, h.slots,
                       h.who, h.note
                INTO holder_token, holder_fence, holder_left_ms, holder_since_us, holder_limit,
                     holder_who, holder_note
                FROM (SELECT k.token, k.counter AS fence, k.until_us, k.since_us,
                             1::bigint AS slots, k.who, k.note
                      FROM holdfast.key AS k
                      WHERE k.key = way AND k.until_us > now_us AND k.token <> tok
                      UNION ALL
                      (SELECT l.token, l.fence, l.until_us, l.since_us, l.slots, l.who, l.note
                       FROM holdfast.lease AS l
                       WHERE l.key = way AND l.until_us > now_us AND l.token <> tok
                         AND (l.slots > 0 OR l.n_keys > 0 AND lim > 1)
                       ORDER BY l.slots = 0)) AS h
                LIMIT 1;
            END IF;
        END IF;
        IF status <> 0 THEN
            fence := 0;
            awaited := false;
        END IF;
        IF status > 0 AND flags[i] & 65536 <> 0 THEN
            PERFORM holdfast.wait(0::smallint, mine, channel, now_us + coalesce(left_us, 0),
                                  now_us);
        END IF;
        RETURN NEXT;
    END LOOP;

    IF cardinality(freed) > 0 THEN
        PERFORM holdfast.tell(0::smallint, freed);
    END IF;
    IF NOT changed AND alone THEN
        -- Marks, notes and locks need not wait for the disk.
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
END $$;

/*
 * Live holders of the keys that start with `prefix` and sort after `after`. Stable, so that its
 * statements see the same: they find where the page ends before they read it.
 */
CREATE OR REPLACE FUNCTION holdfast.list(prefix bytea, after bytea, exact boolean, most bigint)
RETURNS TABLE(key bytea, token bytea, fence bigint, left_ms bigint, since_us bigint, slots bigint,
              who bytea, note bytea)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan SET jit = off
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
DECLARE
    now_us CONSTANT bigint := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
    low bytea := prefix; -- the first key that may be in it
    high bytea;          -- the first that may not
    cut bytea;           -- the key of the first row that is too many
    n integer;
BEGIN
    IF most <= 0 THEN
        RETURN;
    END IF;
    IF exact THEN
        high := prefix || '\x00'::bytea;
    ELSE
        IF length(after) > 0 AND after >= prefix THEN
            low := after || '\x00'::bytea;
        END IF;
        n := length(prefix);
        WHILE n > 0 AND get_byte(prefix, n - 1) = 255 LOOP
            n := n - 1;
        END LOOP;
        IF n > 0 THEN
            high := substr(prefix, 1, n);
            high := set_byte(high, n - 1, get_byte(high, n - 1) + 1);
        ELSE
            high := decode(repeat('ff', 1025), 'hex'); -- no key is so long
        END IF;
        cut := (SELECT h.key
                FROM (SELECT k.key FROM holdfast.key AS k
                      WHERE k.key >= low AND k.key < high AND k.until_us > now_us
                      UNION ALL
                      SELECT l.key FROM holdfast.lease AS l
                      WHERE l.key >= low AND l.key < high AND l.until_us > now_us AND l.slots > 0)
                    AS h
                ORDER BY h.key OFFSET most LIMIT 1);
        IF cut IS NOT NULL THEN
            -- The first key comes whole, or a list could never get past it.
            IF EXISTS (SELECT FROM holdfast.key AS k
                       WHERE k.key >= low AND k.key < cut AND k.until_us > now_us)
               OR EXISTS (SELECT FROM holdfast.lease AS l
                          WHERE l.key >= low AND l.key < cut AND l.until_us > now_us
                            AND l.slots > 0) THEN
                high := cut;
            ELSE
                high := cut || '\x00'::bytea;
            END IF;
        END IF;
    END IF;
    RETURN QUERY
    SELECT h.key, h.token, h.fence, (h.until_us - now_us + 999) / 1000, h.since_us, h.slots, h.who,
           h.note
    FROM (SELECT k.key, k.token, k.counter AS fence, k.until_us, k.since_us, 1::bigint AS slots,
                 k.who, k.note
          FROM holdfast.key AS k
          WHERE k.key >= low AND k.key < high AND k.until_us > now_us
          UNION ALL
          SELECT l.key, l.token, l.fence, l.until_us, l.since_us, l.slots, l.who, l.note
          FROM holdfast.lease AS l
          WHERE l.key >= low AND l.key < high AND l.until_us > now_us AND l.slots > 0) AS h
    ORDER BY h.key;
END $$;

/* ---------------------------------------------------------------- entries */

/*
 * get (4), put (5), del (6), add (7), and keep (2) of a claim. To be called alone in its
 * transaction. A batch of gets that nobody watches only reads, which may be asked of a standby.
 *
 * Status -3: somebody else has locked the entry, and nothing was done; -4: it was read
 * nevertheless, but the watch is not armed. There is one wait that SKIP LOCKED does not skip: for
 * the lock of a version younger than the one that the statement sees. Should it be a user's, the
 * batch fails after lock_timeout, and may be tried again.
 *
 * Ops are done in order of key, those of one key in their own, so that inserts of absent entries
 * wait for each other in one order. A batch that comes in that order is cheaper.
 */
CREATE OR REPLACE FUNCTION holdfast.entries(
    verbs smallint[], spaces smallint[], keys bytea[], tokens bytea[], conditions smallint[],
    if_versions bigint[], formats smallint[], flags integer[], ttls bigint[], lease_mss bigint[],
    fence_keys bytea[], fences bigint[], deltas bigint[], mins bigint[], maxs bigint[],
    initials bigint[], vals bytea[], channel text)
RETURNS TABLE(status smallint, fence bigint, version bigint, attempt bigint, sum bigint,
              present boolean, claimed boolean, format smallint, e_attempt bigint,
              e_version bigint, lease_left_ms bigint, kept_left_ms bigint, stored_us bigint,
              e_fence bigint, token bytea, value bytea)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan SET jit = off
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET lock_timeout = '2s'
AS $$
DECLARE
    greatest_int CONSTANT bigint := 9007199254740991;
    longest_ms CONSTANT bigint := 4000000000000; -- so that no time reaches 2^53
    day_us CONSTANT bigint := 86400000000;
    alone CONSTANT boolean := pg_current_xact_id_if_assigned() IS NULL;
    n CONSTANT integer := cardinality(verbs);
    reads boolean := true;
    sorted boolean := true;
    changed boolean := false;
    told bytea[] := '{}';
    told_records bytea[] := '{}';
    r holdfast.entry%ROWTYPE;
    now_us bigint := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
    locked boolean;    -- it exists, and is ours
    live boolean;      -- neither deleted nor expired
    remembers boolean; -- a fence, still
    watched boolean;
    shown boolean;
    repeated boolean;  -- a put that has landed before
    tries integer;
    digits text;
    total numeric;
BEGIN
    FOR i IN 1 .. n LOOP
        IF verbs[i] <> 4 OR flags[i] & 65536 <> 0 THEN
            reads := false;
            EXIT;
        END IF;
    END LOOP;
    IF reads THEN
        RETURN QUERY
        SELECT 0::smallint, 0::bigint, 0::bigint, 0::bigint, 0::bigint,
               e.key IS NOT NULL, coalesce(e.state = 1, false), coalesce(e.format, 0::smallint),
               coalesce(e.attempt, 0), coalesce(e.version, 0),
               CASE WHEN e.state = 1 AND e.claim_until_us > now_us
                    THEN (e.claim_until_us - now_us + 999) / 1000 ELSE 0 END,
               CASE WHEN e.key IS NULL THEN 0 WHEN e.kept_until_us IS NULL THEN -1
                    ELSE (e.kept_until_us - now_us + 999) / 1000 END,
               coalesce(e.stored_us, 0), coalesce(e.fence, 0), e.token, e.value
        FROM unnest(spaces, keys) WITH ORDINALITY AS d(space, key, nth)
        LEFT JOIN holdfast.entry AS e
            ON e.space = d.space AND e.key = d.key AND e.state <> 2
               AND (e.kept_until_us IS NULL OR e.kept_until_us > now_us)
        ORDER BY d.nth;
        RETURN;
    END IF;

    FOR i IN 2 .. n LOOP
        IF (spaces[i], keys[i]) < (spaces[i - 1], keys[i - 1]) THEN
            sorted := false;
            EXIT;
        END IF;
    END LOOP;
    IF NOT sorted THEN
        RETURN QUERY
        SELECT e.status, e.fence, e.version, e.attempt, e.sum, e.present, e.claimed, e.format,
               e.e_attempt, e.e_version, e.lease_left_ms, e.kept_left_ms, e.stored_us, e.e_fence,
               e.token, e.value
        FROM (SELECT array_agg(o.nth) AS turn, array_agg(o.a) AS a, array_agg(o.b) AS b,
                     array_agg(o.c) AS c, array_agg(o.d) AS d, array_agg(o.e) AS e,
                     array_agg(o.f) AS f, array_agg(o.g) AS g, array_agg(o.h) AS h,
                     array_agg(o.i) AS i, array_agg(o.j) AS j, array_agg(o.k) AS k,
                     array_agg(o.l) AS l, array_agg(o.m) AS m, array_agg(o.n) AS n,
                     array_agg(o.o) AS o, array_agg(o.p) AS p, array_agg(o.q) AS q
              FROM (SELECT u.*
                    FROM unnest(verbs, spaces, keys, tokens, conditions, if_versions, formats,
                                flags, ttls, lease_mss, fence_keys, fences, deltas, mins, maxs,
                                initials, vals) WITH ORDINALITY
                         AS u(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, nth)
                    ORDER BY u.b, u.c, u.nth) AS o) AS s,
             holdfast.entries(s.a, s.b, s.c, s.d, s.e, s.f, s.g, s.h, s.i, s.j, s.k, s.l, s.m, s.n,
                              s.o, s.p, s.q, channel) WITH ORDINALITY
                 AS e(status, fence, version, attempt, sum, present, claimed, format, e_attempt,
                      e_version, lease_left_ms, kept_left_ms, stored_us, e_fence, token, value, nth)
        ORDER BY s.turn[e.nth];
        RETURN;
    END IF;

    PERFORM holdfast.enter(false);
    FOR i IN 1 .. n LOOP
        watched := flags[i] & 65536 <> 0;
        tries := 0;
        LOOP
            tries := tries + 1;
            status := 0;
            fence := 0;
            version := 0;
            attempt := 0;
            sum := 0;
            shown := verbs[i] = 4;
            repeated := false;
            SELECT e.* INTO r FROM holdfast.entry AS e
            WHERE e.space = spaces[i] AND e.key = keys[i] FOR UPDATE SKIP LOCKED;
            locked := FOUND;
            IF NOT locked THEN
                SELECT e.* INTO r FROM holdfast.entry AS e
                WHERE e.space = spaces[i] AND e.key = keys[i];
                IF FOUND OR tries > 8 THEN
                    status := -3;
                END IF;
            END IF;
            now_us := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
            live := coalesce(r.state <> 2
                             AND (r.kept_until_us IS NULL OR r.kept_until_us > now_us), false);
            -- An expired entry's fence is remembered for a day, as a deleted one's is.
            remembers := coalesce(r.fence_key <> ''
                                  AND (r.kept_until_us IS NULL
                                       OR r.kept_until_us + CASE r.state WHEN 2 THEN 0
                                                                         ELSE day_us END > now_us),
                                  false);
            IF status = -3 THEN
                IF verbs[i] = 4 THEN
                    status := CASE WHEN watched THEN -4 ELSE 0 END;
                END IF;
                EXIT;
            END IF;

            -- What a write says.
            IF verbs[i] = 2 THEN
                IF live AND r.state = 1 AND r.token = tokens[i] AND r.claim_until_us > now_us THEN
                    UPDATE holdfast.entry AS e
                    SET claim_until_us = now_us + least(ttls[i], longest_ms) * 1000
                    WHERE e.space = spaces[i] AND e.key = keys[i];
                    changed := true;
                ELSIF NOT (live AND r.state = 0 AND r.claim_until_us > 0
                           AND r.token = tokens[i]) THEN
                    status := 2; -- and else it has been finished by finish_record
                END IF;
                EXIT;
            END IF;
            IF verbs[i] > 4 THEN
                IF verbs[i] = 5 AND live AND r.token = tokens[i] AND r.token <> ''
                   AND NOT (conditions[i] = 3 AND r.state = 1) THEN
                    repeated := true;
                ELSIF remembers AND fence_keys[i] <> '' AND r.fence_key <> fence_keys[i] THEN
                    status := 6;
                ELSIF remembers AND fence_keys[i] <> '' AND r.fence > fences[i] THEN
                    status := 5;
                    fence := r.fence;
                ELSIF verbs[i] = 6 AND NOT live THEN
                    status := 4;
                ELSIF conditions[i] = 1 AND live THEN
                    status := 3;
                ELSIF conditions[i] = 2 AND NOT (live AND r.version = if_versions[i]) THEN
                    status := 4;
                ELSIF conditions[i] = 3
                      AND NOT (live AND r.token = tokens[i] AND r.token <> ''
                               AND NOT (verbs[i] = 6 AND r.state = 0 AND r.claim_until_us > 0)) THEN
                    status := 2; -- a run that gives up takes nothing back that has been committed
                ELSIF conditions[i] = 4 AND live
                      AND NOT (r.state = 1 AND r.claim_until_us <= now_us) THEN
                    status := 3;
                END IF;
            END IF;
            IF verbs[i] = 7 AND status = 0 THEN
                total := initials[i];
                IF live THEN
                    total := NULL;
                    IF r.format = 1 AND r.state = 0 AND length(r.value) <= 17 THEN
                        digits := encode(r.value, 'escape');
                        IF digits ~ '^-?(0|[1-9][0-9]{0,15})$' THEN
                            total := digits::numeric;
                        END IF;
                    END IF;
                END IF;
                IF total IS NULL OR live AND abs(total) > greatest_int THEN
                    status := 8;
                ELSE
                    total := total + deltas[i];
                    IF abs(total) > greatest_int OR flags[i] & 16 <> 0 AND total < mins[i]
                       OR flags[i] & 32 <> 0 AND total > maxs[i] THEN
                        status := 7;
                    END IF;
                END IF;
            END IF;

            IF verbs[i] = 4 OR status > 0 THEN
                shown := verbs[i] = 4 OR flags[i] & 4 <> 0;
                EXIT WHEN NOT watched OR verbs[i] > 5;
                IF NOT locked THEN
                    -- Whoever is about to make it waits for this row, and then finds the channel.
                    INSERT INTO holdfast.entry AS e (space, key, state, format, attempt, version,
                        claim_until_us, kept_until_us, stored_us, fence, token, fence_key)
                    VALUES (spaces[i], keys[i], 2, 0, 0, 0, 0, 0, 0, 0, '', '')
                    ON CONFLICT DO NOTHING;
                    CONTINUE WHEN NOT FOUND;
                    DELETE FROM holdfast.entry AS e
                    WHERE e.space = spaces[i] AND e.key = keys[i];
                END IF;
                PERFORM holdfast.wait(spaces[i], ARRAY[keys[i]], channel,
                                      CASE WHEN live AND r.state = 1
                                           THEN greatest(r.claim_until_us, now_us)
                                           ELSE now_us END, now_us);
                EXIT;
            END IF;
            IF repeated THEN
                version := r.version;
                attempt := r.attempt;
                EXIT;
            END IF;

            -- It lands.
            IF fence_keys[i] <> '' THEN
                r.fence_key := fence_keys[i];
                r.fence := fences[i];
            ELSIF NOT remembers THEN
                r.fence_key := '';
                r.fence := 0;
            END IF;
            IF verbs[i] = 6 THEN
                IF r.fence_key <> '' THEN
                    UPDATE holdfast.entry AS e
                    SET state = 2, claim_until_us = 0, kept_until_us = now_us + day_us,
                        stored_us = now_us, fence = r.fence, fence_key = r.fence_key, value = NULL
                    WHERE e.space = spaces[i] AND e.key = keys[i];
                ELSE
                    DELETE FROM holdfast.entry AS e
                    WHERE e.space = spaces[i] AND e.key = keys[i];
                END IF;
            ELSE
                IF NOT live OR verbs[i] = 5 AND flags[i] & 2 = 0 THEN
                    r.kept_until_us := CASE WHEN ttls[i] > 0
                        THEN now_us + least(ttls[i], longest_ms) * 1000 END;
                END IF;
                r.state := 0;
                r.claim_until_us := 0;
                IF verbs[i] = 5 THEN
                    r.attempt := CASE WHEN NOT live THEN 1 WHEN conditions[i] = 4 THEN r.attempt + 1
                                      WHEN conditions[i] = 3 THEN r.attempt ELSE 1 END;
                    IF lease_mss[i] > 0 THEN
                        r.state := 1;
                        r.claim_until_us := now_us + least(lease_mss[i], longest_ms) * 1000;
                    END IF;
                    r.format := formats[i];
                    r.value := coalesce(vals[i], '');
                    attempt := r.attempt;
                ELSE
                    IF NOT live THEN
                        r.attempt := 1;
                    END IF;
                    r.format := 1;
                    r.value := convert_to(total::text, 'SQL_ASCII');
                    sum := total;
                END IF;
                IF locked THEN
                    UPDATE holdfast.entry AS e
                    SET state = r.state, format = r.format, attempt = r.attempt,
                        version = nextval('holdfast.version'), claim_until_us = r.claim_until_us,
                        kept_until_us = r.kept_until_us, stored_us = now_us, fence = r.fence,
                        token = tokens[i], fence_key = r.fence_key, value = r.value
                    WHERE e.space = spaces[i] AND e.key = keys[i]
                    RETURNING e.version INTO version;
                ELSE
                    INSERT INTO holdfast.entry AS e (space, key, state, format, attempt, version,
                        claim_until_us, kept_until_us, stored_us, fence, token, fence_key, value)
                    VALUES (spaces[i], keys[i], r.state, r.format, r.attempt,
                            nextval('holdfast.version'), r.claim_until_us, r.kept_until_us, now_us,
                            r.fence, tokens[i], r.fence_key, r.value)
                    ON CONFLICT DO NOTHING
                    RETURNING e.version INTO version;
                    CONTINUE WHEN NOT FOUND; -- somebody else was first
                    -- That number was drawn before the row was ours: others may have made the
                    -- entry with a newer one meanwhile, and removed it.
                    IF (SELECT s.last_value FROM holdfast.version AS s) <> version THEN
                        UPDATE holdfast.entry AS e SET version = nextval('holdfast.version')
                        WHERE e.space = spaces[i] AND e.key = keys[i]
                        RETURNING e.version INTO version;
                    END IF;
                END IF;
            END IF;
            changed := true;
            IF spaces[i] = 2 THEN
                told_records := told_records || keys[i];
            ELSE
                told := told || keys[i];
            END IF;
            EXIT;
        END LOOP;

        present := shown AND live;
        IF present THEN
            claimed := r.state = 1;
            format := r.format;
            e_attempt := r.attempt;
            e_version := r.version;
            lease_left_ms := 0;
            IF claimed AND r.claim_until_us > now_us THEN
                lease_left_ms := (r.claim_until_us - now_us + 999) / 1000;
            END IF;
            kept_left_ms := coalesce((r.kept_until_us - now_us + 999) / 1000, -1);
            stored_us := r.stored_us;
            e_fence := r.fence;
            token := r.token;
            value := r.value;
        ELSE
            claimed := false;
            format := 0;
            e_attempt := 0;
            e_version := 0;
            lease_left_ms := 0;
            kept_left_ms := 0;
            stored_us := 0;
            e_fence := 0;
            token := NULL;
            value := NULL;
        END IF;
        RETURN NEXT;
    END LOOP;

    IF cardinality(told) > 0 THEN
        PERFORM holdfast.tell(1::smallint, told);
    END IF;
    IF cardinality(told_records) > 0 THEN
        PERFORM holdfast.tell(2::smallint, told_records);
    END IF;
    IF NOT changed AND alone THEN
        -- Locks and channels need not wait for the disk.
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
END $$;

/*
 * For a user's own transaction: the record's outcome is stored if and when that commits. Does what
 * a put with HF_IF_TOKEN does, but waits for the record's lock. False, with nothing done, if the
 * claim is not the token's any more: then the transaction should be rolled back. Above READ
 * COMMITTED it may not see who waits, who will then look by himself when the claim's time is up.
 */
CREATE OR REPLACE FUNCTION holdfast.finish_record(key bytea, token bytea, value bytea,
                                                  format smallint, ttl_ms bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan SET jit = off
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
DECLARE
    r holdfast.entry%ROWTYPE;
    now_us bigint;
BEGIN
    SELECT e.* INTO r FROM holdfast.entry AS e
    WHERE e.space = 2 AND e.key = finish_record.key FOR UPDATE;
    now_us := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
    IF NOT FOUND OR r.state = 2 OR r.kept_until_us <= now_us OR r.token <> finish_record.token THEN
        RETURN false;
    END IF;
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    IF r.state <> 1 THEN
        RETURN true; -- it has landed before
    END IF;
    UPDATE holdfast.entry AS e
    SET state = 0, format = finish_record.format, version = nextval('holdfast.version'),
        kept_until_us = CASE WHEN ttl_ms > 0 THEN now_us + least(ttl_ms, 4000000000000) * 1000 END,
        stored_us = now_us, value = coalesce(finish_record.value, '')
    WHERE e.space = 2 AND e.key = finish_record.key;
    PERFORM holdfast.tell(2::smallint, ARRAY[finish_record.key]);
    RETURN true;
END $$;

/* The same as one statement that nobody need look at: where the claim is not the token's any more
 * it fails, and the transaction with it. */
CREATE OR REPLACE FUNCTION holdfast.must_finish_record(key bytea, token bytea, value bytea,
                                                       format smallint, ttl_ms bigint)
RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT holdfast.finish_record(key, token, value, format, ttl_ms) THEN
        RAISE EXCEPTION 'the run came too late: its record was taken over or forgotten'
            USING ERRCODE = 'HF001', HINT = 'Roll back: what this transaction did is not to be.';
    END IF;
    RETURN true;
END $$;

/* ---------------------------------------------------------------- sweep */

/* The lapsed leases, and the rows of keys that are idle. Of several `due` keys the locks are taken
 * in their order, as a batch does. */
CREATE OR REPLACE FUNCTION holdfast.sweep_keys(candidates bytea[], most bigint, now_us bigint)
RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    day_us CONSTANT bigint := 86400000000;
    again_us CONSTANT bigint := 600000000; -- a key that is held is not looked at before
    due CONSTANT bytea[] := ARRAY(
        SELECT k.key FROM holdfast.key AS k WHERE k.key = ANY (candidates) AND k.sweep_at <= now_us
        ORDER BY k.key FOR UPDATE SKIP LOCKED);
    swept bigint;
    n bigint;
BEGIN
    DELETE FROM holdfast.lease AS l
    USING (SELECT o.key, o.token
           FROM unnest(due) AS d(key)
           JOIN holdfast.lease AS o ON o.key = d.key
           WHERE o.until_us <= now_us LIMIT most) AS x
    WHERE l.key = x.key AND l.token = x.token;
    GET DIAGNOSTICS swept = ROW_COUNT;

    -- Nobody is there, and nobody was a day ago; or the key was never taken at all.
    DELETE FROM holdfast.key AS k
    USING (SELECT d.key, (SELECT min(l.until_us) FROM holdfast.lease AS l WHERE l.key = d.key)
                         AS first_us
           FROM unnest(due) AS d(key)) AS x
    WHERE k.key = x.key AND x.first_us IS NULL AND k.until_us = 0 AND k.counter IN (0, k.idle);
    GET DIAGNOSTICS n = ROW_COUNT;
    swept := swept + n;

    WITH looked_at AS (
        UPDATE holdfast.key AS k
        SET until_us = CASE WHEN x.is_held THEN k.until_us ELSE 0 END,
            token = CASE WHEN x.is_held THEN k.token ELSE '' END,
            who = CASE WHEN x.is_held THEN k.who ELSE '' END,
            note = CASE WHEN x.is_held THEN k.note ELSE '' END,
            crowded = x.first_us IS NOT NULL,
            idle = CASE WHEN x.is_held OR x.first_us IS NOT NULL THEN -1 ELSE k.counter END,
            sweep_at = CASE WHEN x.first_us <= now_us THEN k.sweep_at
                            WHEN x.is_held OR x.first_us IS NOT NULL
                            THEN greatest(least(x.first_us,
                                                CASE WHEN x.is_held THEN k.until_us END),
                                          now_us + again_us)
                            ELSE now_us + day_us END
        FROM (SELECT o.key, o.until_us, o.until_us > now_us AS is_held,
                     (SELECT min(l.until_us) FROM holdfast.lease AS l WHERE l.key = o.key)
                         AS first_us
              FROM unnest(due) AS d(key)
              JOIN holdfast.key AS o ON o.key = d.key) AS x
        WHERE k.key = x.key
        RETURNING x.until_us > 0 AND NOT x.is_held AS lapsed)
    SELECT count(*) FILTER (WHERE t.lapsed) INTO n FROM looked_at AS t;
    RETURN least(swept + n, most);
END $$;

/* Entries past their time, and those who wait no more. */
CREATE OR REPLACE FUNCTION holdfast.sweep_entries(most bigint, now_us bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    day_us CONSTANT bigint := 86400000000;
    swept bigint;
    n bigint;
BEGIN
    DELETE FROM holdfast.waiter AS w
    USING (SELECT o.space, o.key, o.channel FROM holdfast.waiter AS o
           WHERE o.until_us <= now_us LIMIT most FOR UPDATE SKIP LOCKED) AS x
    WHERE w.space = x.space AND w.key = x.key AND w.channel = x.channel;

    DELETE FROM holdfast.entry AS e
    USING (SELECT o.space, o.key FROM holdfast.entry AS o
           WHERE o.kept_until_us <= now_us AND (o.state = 2 OR o.fence_key = '')
           ORDER BY o.kept_until_us LIMIT most FOR UPDATE SKIP LOCKED) AS x
    WHERE e.space = x.space AND e.key = x.key;
    GET DIAGNOSTICS swept = ROW_COUNT;

    -- What remembers a fence stays for a day, as a tombstone.
    UPDATE holdfast.entry AS e
    SET state = 2, value = NULL, claim_until_us = 0, kept_until_us = e.kept_until_us + day_us
    FROM (SELECT o.space, o.key FROM holdfast.entry AS o
          WHERE o.kept_until_us <= now_us AND o.state <> 2 AND o.fence_key <> ''
          ORDER BY o.kept_until_us LIMIT most - swept FOR UPDATE SKIP LOCKED) AS x
    WHERE e.space = x.space AND e.key = x.key;
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN swept + n;
END $$;

/*
 * Removes up to `most` rows whose time is up, and says how many. With the lock of its row a key is
 * as still as for a batch; a row that is locked is left for the next time. The one wait that SKIP
 * LOCKED does not skip (see entries) is soon given up, so nobody waits for it in a circle. Tells
 * nobody: who waits knows when a lease lapses.
 */
CREATE OR REPLACE FUNCTION holdfast.sweep(most integer) RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan SET jit = off
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET lock_timeout = '10ms'
AS $$
DECLARE
    now_us CONSTANT bigint := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
    swept bigint := 0;
    candidates bytea[];
    upto integer := 0;
    n integer;
BEGIN
    PERFORM holdfast.enter(true); -- what is lost of this is done again
    -- Some are only to be looked at later again.
    candidates := ARRAY(SELECT k.key FROM holdfast.key AS k WHERE k.sweep_at <= now_us
                        ORDER BY k.sweep_at LIMIT most + 1000);
    WHILE swept < most AND upto < cardinality(candidates) LOOP
        n := least(most - swept, 100);
        BEGIN
            swept := swept + holdfast.sweep_keys(candidates[upto + 1:upto + n], most - swept,
                                                 now_us);
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            NULL;
        END;
        upto := upto + n;
    END LOOP;
    BEGIN
        swept := swept + holdfast.sweep_entries(most - swept, now_us);
    EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
        NULL;
    END;
    RETURN swept;
END $$;

INSERT INTO holdfast.meta AS m (version) VALUES (1)
ON CONFLICT (one) DO UPDATE SET version = excluded.version WHERE m.version < excluded.version;
