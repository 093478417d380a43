-- A take at a node of a quorum: it counts only if the node's marker is the one that its client has
-- read. What the two say is one instant.
--
-- KEYS   as in take.lua
-- ARGV   as in take.lua, and behind that the name of the marker, what it must be, and what the
--        clocks of most nodes show (us), "" if that is not known
-- Gives  nonce, -4, the server's clock (us), the marker: there is no vote
--        else what take.lua gives, and behind that the server's clock

local n_args = #ARGV - 3

-- Not its own clock, unless no other is known: it may be wrong for good.
local function seed()
    local us = tonumber(ARGV[#ARGV])
    if us then return us end
    local t = redis.call('TIME')
    return t[1] * 1000000 + t[2]
end

local function take()
--@ take
end

local marker, t = redis.call('GET', ARGV[n_args + 1]), redis.call('TIME')
local at = t[1] * 1000000 + t[2]
if marker ~= ARGV[n_args + 2] then return {tonumber(ARGV[1]), -4, at, marker or ''} end
local answer = take()
answer[#answer + 1] = at
return answer
