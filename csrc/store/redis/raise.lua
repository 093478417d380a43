-- Writes the fence of a take that a majority has granted, if the token still holds all keys, and the
-- node's marker is the one that its client has read. A counter that is greater stays.
--
-- KEYS   the lease and the state of each key, in turn
-- ARGV   1 nonce   2 token   3 epoch   4 fence   5 name of the marker   6 what it must be
-- Gives  nonce, 1 or 0

local call, match = redis.call, string.match
local nonce, token = tonumber(ARGV[1]), ARGV[2]

--@ time
--@ keys
--@ shared

if call('GET', ARGV[5]) ~= ARGV[6] then return {nonce, 0} end
for _, key in ipairs(keys) do
    key.held = call('GET', key.lease)
    if key.held ~= token and not (key.held == SHARED and shares(key, token)) then
        return {nonce, 0}
    end
    key.text = match(call('GET', key.state) or '', '^%d+ %S+ .*$')
    if not key.text then return {nonce, 0} end
end

local function raised(text)
    local counter, rest = match(text, '^(%d+) %S+ (.*)$')
    local fence = math.max(tonumber(counter), tonumber(ARGV[4]))
    return string.format('%.0f %s %s', fence, ARGV[3], rest)
end

for _, key in ipairs(keys) do
    call('SET', key.state, raised(key.text), 'KEEPTTL')
    if key.held == SHARED then
        local h = key.base .. 'h'
        local text = call('HGET', h, token)
        if text then call('HSET', h, token, raised(text)) end
    end
end
return {nonce, 1}
