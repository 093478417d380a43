-- Writes an entry, if its condition holds and no newer fence has been seen.
--
-- KEYS   1 the entry
-- ARGV   1 to 7 as in write.part.lua   8 format   9 how long a claim is leased, 0: it is no claim
--        10 how long the entry is kept, 0: for ever   11 "k" if that stays as it is   12 value
--        13 when it is refused: the channel to be told of the next change, or ""
-- Gives  nonce, 1, version, attempt

--@ time
--@ entry
--@ watching
--@ write

local e, problem = read()
if problem then return problem end
local present = is_present(e)

-- It has landed before, and its answer may have been lost.
if present and token ~= NOBODY and e.token == token
    and not (condition == IF_TOKEN and e.state == 'c') then
    return {nonce, 1, e.version, e.attempt}
end
local why = judge(e)
if why then
    leave(ARGV[13])
    return refuse(e, why)
end

local leased, ttl = tonumber(ARGV[9]), tonumber(ARGV[10])
local new = {version = next_version(e), attempt = 1, state = leased > 0 and 'c' or 'p',
    format = ARGV[8], token = token, lease = leased > 0 and now() + leased or 0,
    kept = ttl > 0 and now() + ttl or 0}
if new.version > VERSION_MAX then return {nonce, -1} end
if present and condition == IF_CLAIMABLE then new.attempt = e.attempt + 1 end
if present and condition == IF_TOKEN then new.attempt = e.attempt end
if present and ARGV[11] == 'k' then new.kept = e.kept end
write(e, new, ARGV[12])
tell()
return {nonce, 1, new.version, new.attempt}
