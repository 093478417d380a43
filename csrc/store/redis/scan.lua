-- One step through the keys of a server: the names of states whose key is held now.
--
-- ARGV   1 nonce   2 cursor   3 pattern of the names of states   4 how far a step goes   5 prefix
-- Gives  nonce, the next cursor, names

local nonce, prefix = tonumber(ARGV[1]), ARGV[5]
local found = redis.call('SCAN', ARGV[2], 'MATCH', ARGV[3], 'COUNT', ARGV[4])
local result = {nonce, found[1]}
for _, name in ipairs(found[2]) do
    -- {lease}\0s, or {tag}key\0s (see redis-names.c).
    local from = #prefix + 2
    local brace = string.find(name, '}', from, true)
    local lease = string.sub(name, from, brace - 1)
    if string.byte(name, brace + 1) ~= 0 then
        lease = prefix .. string.sub(name, brace + 1, -3)
    end
    -- While its slot moves to another server a key may be there already. And where the prefix is
    -- empty, a user's own data may have the name of what was locked before.
    if redis.pcall('TYPE', lease).ok == 'string' then result[#result + 1] = name end
end
return result
