-- Sets the time left of all keys, if the token still holds them all; else changes nothing. A server
-- whose memory is full refuses some writes, if they come first: what comes first here is none of
-- those.
--
-- KEYS   the lease and the state of each key, in turn
-- ARGV   1 nonce   2 token   3 how long the lease lasts, less one   4 how long the state does
--        5 at a node of a quorum: "clock"
-- Gives  nonce, 1; 2 where one of them is shared; or 0; and the server's clock (us), if asked for

local call = redis.call
local nonce, token = tonumber(ARGV[1]), ARGV[2]

local function answer(kept)
    if not ARGV[5] then return {nonce, kept} end
    local t = call('TIME')
    return {nonce, kept, t[1] * 1000000 + t[2]}
end

-- The plain case: one key, held alone. Three calls.
if #KEYS == 2 and call('GET', KEYS[1]) == token then
    call('PEXPIRE', KEYS[1], ARGV[3])
    call('PEXPIRE', KEYS[2], ARGV[4])
    return answer(1)
end

--@ time
--@ keys
--@ shared

for _, key in ipairs(keys) do
    key.held = call('GET', key.lease)
    if key.held ~= token and not (key.held == SHARED and shares(key, token)) then
        return answer(0)
    end
end
local ttl, kept = ARGV[3] + 1, 1
for _, key in ipairs(keys) do
    call('PEXPIRE', key.lease, ARGV[3])
    if key.held == token then
        call('PEXPIRE', key.state, ARGV[4])
    else
        kept = 2
        call('ZADD', key.base .. 'z', now() + ttl, token)
        call('PEXPIRE', key.state, settle(key) - now() + ARGV[4] - ttl)
    end
end
return answer(kept)
