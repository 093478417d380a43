-- Who holds a key.
--
-- KEYS   1 its lease   2 its state
-- ARGV   1 nonce
-- Gives  nonce, and of each holder: its token ("": a stranger), time left or -1, what is told of it

local call = redis.call
local nonce = tonumber(ARGV[1])
local held, state = call('GET', KEYS[1]), call('GET', KEYS[2])
if not held then return {nonce} end

--@ time
--@ shared

if held ~= SHARED then
    local ms = call('PTTL', KEYS[1])
    if ms >= 0 then ms = ms + 1 end
    local is_known = string.match(state or '', '^%d+ %S+ (%S+)') == held
    return is_known and {nonce, held, ms, state} or {nonce, '', ms, ''}
end

local base = string.sub(KEYS[2], 1, -2)
local rows, details = {nonce}, {}
local all = call('HGETALL', base .. 'h')
for i = 1, #all, 2 do
    details[all[i]] = all[i + 1]
end
local live = call('ZRANGEBYSCORE', base .. 'z', '(' .. now(), '+inf', 'WITHSCORES')
for i = 1, #live, 2 do
    rows[#rows + 1] = live[i]
    rows[#rows + 1] = live[i + 1] - now()
    rows[#rows + 1] = details[live[i]] or ''
end
return rows
