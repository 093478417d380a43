-- An entry (a value, a record) is one string: a head of fixed length, the lock key whose fence it
-- remembers, the value. In the head, divided by blanks:
--    version, attempt
--    "p" plain, "c" claimed or "t" a tombstone, and the value's format
--    the owner's token
--    until when a claim is leased, until when the entry is kept (ms; 0: for ever; of a tombstone:
--    when it died), when it was written (us)
--    the newest fence, the length of the lock key
-- Past its time, one that remembers a fence lives on for a day, unseen.
local HEAD = 137
local FORMAT = '%016.0f %010.0f %s%s %s %016.0f %016.0f %016.0f %016.0f %04.0f\n'
local PATTERN = '^(%d+) (%d+) (%a)(%d) (%x+) (%d+) (%d+) %d+ (%d+) (%d+)\n$'
local LEASE_AT = 64
local DAY_MS = 86400000
local NOBODY = string.rep('0', 32)

local name = KEYS[1]

-- The entry, nil if there is none; then an error, if something else is there.
local function read()
    local head = redis.call('GETRANGE', name, 0, HEAD - 1)
    if head == '' then return nil end
    local version, attempt, state, format, token, lease, kept, fence, lock =
        string.match(head, PATTERN)
    if not version then return nil, redis.error_reply('WRONGTYPE no entry of Holdfast') end
    return {version = tonumber(version), attempt = tonumber(attempt), state = state,
        format = format, token = token, lease = tonumber(lease), kept = tonumber(kept),
        fence = tonumber(fence), lock_len = tonumber(lock)}
end

local function is_present(e)
    return e and e.state ~= 't' and (e.kept == 0 or e.kept > now())
end

local function remembers(e)
    return e and e.lock_len > 0 and (e.kept == 0 or e.kept + DAY_MS > now())
end

local function lock_of(e)
    return redis.call('GETRANGE', name, HEAD, HEAD + e.lock_len - 1)
end

-- A server whose memory is full refuses what may need some, but not behind a write that frees it,
-- or would.
local function write_though_full()
    redis.call('DEL', name .. '-')
end
