-- Takes a lease on one or more keys: all or none.
--
-- KEYS   the lease and the state of each key, in turn
-- ARGV   1 nonce   2 token   3 how long the lease lasts, less one   4 how long the state does
--        5 epoch, "-" if it is not known   6 this instance's channel   7 what is told of a holder
--        8 what a refusal leaves: "i" an intent mark, "w" a note that this instance waits
--        and, unless one key is taken exclusively from nobody:   9 limit
--        10 the token to be replaced, or ""
-- Gives  nonce, 1, fence, whether others wait
--        nonce, 0, time left or -1, whether nobody will tell of the release, and of one in the way:
--               its token ("": a stranger), time left, what is told of it
--        nonce, a negative number: see below
--
-- Redis keeps a key through the millisecond in which it expires. So that a lease of 50 ms is gone
-- after 50 ms it gets 49, and one whose PTTL is 49 has 50 left.
--
-- An error must leave nothing behind: whatever may fail on data of another type is read before the
-- first write, and the first write is one that a server refuses when its memory is full.

local n_args = #ARGV
local function seed()
    local t = redis.call('TIME')
    return t[1] * 1000000 + t[2]
end

--@ take
