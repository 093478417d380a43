-- Ends the token's lease on those of the keys that it holds, and its intent marks on them.
--
-- KEYS   the lease and the state of each key, in turn
-- ARGV   1 nonce   2 token
-- Gives  nonce, 1 if it held them all, else 0

local call = redis.call
local nonce, token = tonumber(ARGV[1]), ARGV[2]

--@ time
--@ wake

-- The plain case: one key, held alone. Three calls where nobody waits.
if #KEYS == 2 and call('GET', KEYS[1]) == token then
    call('DEL', KEYS[1])
    wake(string.sub(KEYS[2], 1, -2))
    return {nonce, 1}
end

--@ keys
--@ shared

for _, key in ipairs(keys) do
    key.held = call('GET', key.lease)
    key.is_shared = key.held == SHARED and shares(key, token)
end
local ended = 0
for _, key in ipairs(keys) do
    local had_mark = call('ZREM', key.base .. 'i', token) == 1
    local had_lease = key.held == token or key.is_shared
    if key.held == token then
        call('DEL', key.lease)
    elseif key.is_shared then
        call('ZREM', key.base .. 'z', token)
        call('HDEL', key.base .. 'h', token)
        settle(key)
    end
    if had_lease then ended = ended + 1 end
    if had_lease or had_mark then wake(key.base) end
end
return {nonce, ended == #keys and 1 or 0}
