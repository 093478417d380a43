-- Reads the marker of a node of a quorum, and writes another if it is still the one that its client
-- has read.
--
-- KEYS   1 the marker
-- ARGV   1 nonce   and, to write:   2 what it must be   3 run id   4 maxTtl
--        5 for how long (ms) there is no vote; "": for as long as it says
-- Gives  nonce, the server's clock (us), the marker as it is now

local call = redis.call
local t = call('TIME')
local at = t[1] * 1000000 + t[2]
local marker = call('GET', KEYS[1]) or ''
if ARGV[2] and marker == ARGV[2] then
    local till = 0
    if ARGV[5] == '' then
        till = tonumber(string.match(marker, '(%d+)$') or 0)
    elseif tonumber(ARGV[5]) > 0 then
        till = at + ARGV[5] * 1000
    end
    marker = string.format('%s %s %.0f', ARGV[3], ARGV[4], till)
    call('SET', KEYS[1], marker)
end
return {tonumber(ARGV[1]), at, marker}
