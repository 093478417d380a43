-- Renews the lease of a claim, if the token still has it.
--
-- KEYS   1 the entry
-- ARGV   1 nonce   2 token   3 how long it is leased from now
-- Gives  nonce, 1 or 0

local nonce = tonumber(ARGV[1])

--@ time
--@ entry

local e, problem = read()
if problem then return problem end
if not is_present(e) or e.state ~= 'c' or e.lease <= now() or e.token ~= ARGV[2] then
    return {nonce, 0}
end
write_though_full()
redis.call('SETRANGE', name, LEASE_AT, string.format('%016.0f', now() + ARGV[3]))
return {nonce, 1}
