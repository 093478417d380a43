-- A take at a node of a quorum: it counts only if the node's marker is the one that its client has
-- read. What the two say is one instant.
--
-- KEYS   as in take.lua
-- ARGV   as in take.lua, and behind that the name of the marker, and what it must be
-- Gives  nonce, -4, the server's clock (us), the marker: there is no vote
--        else what take.lua gives, and behind that the server's clock

local n_args = #ARGV - 2

local function take()
--@ take
end

local marker, t = redis.call('GET', ARGV[n_args + 1]), redis.call('TIME')
local at = t[1] * 1000000 + t[2]
if marker ~= ARGV[n_args + 2] then return {tonumber(ARGV[1]), -4, at, marker or ''} end
local answer = take()
answer[#answer + 1] = at
return answer
