-- Reads an entry.
--
-- KEYS   1 the entry
-- ARGV   1 nonce   2 the channel of an instance that is to be told of the next change, or ""
-- Gives  nonce, now (ms), the entry or ""

local nonce = tonumber(ARGV[1])

--@ time
--@ entry
--@ watching

leave(ARGV[2])
local e, problem = read()
if problem then return problem end
return {nonce, now(), is_present(e) and redis.call('GET', name) or ''}
