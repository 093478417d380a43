-- Adds to an integer, if its condition holds, no newer fence has been seen, and the sum is within
-- bounds.
--
-- KEYS   1 the entry
-- ARGV   1 to 7 as in write.part.lua   8 the sum where there is no entry, "": it is out of bounds
--        9, 10 what is added, in two parts: so each, and the sum on its way, is a number that a
--        double holds exactly, or is out of bounds in any case
--        11 least   12 greatest   13 how long a new entry is kept, 0: for ever
-- Gives  nonce, 1, version, sum

--@ time
--@ entry
--@ watching
--@ write

local INT_MAX = 9007199254740991

local e, problem = read()
if problem then return problem end
local why = judge(e)
if why then return refuse(e, why) end

-- The integer of the entry, nil if it is none; -?(0|[1-9][0-9]*), as JSON has it.
local function read_integer()
    if e.state ~= 'p' or e.format ~= '1' then return nil end
    local from = HEAD + e.lock_len
    local digits = string.match(redis.call('GETRANGE', name, from, from + 20), '^%-?(%d+)$')
    if not digits or (#digits > 1 and string.sub(digits, 1, 1) == '0') then return nil end
    local value = tonumber(redis.call('GETRANGE', name, from, from + 20))
    return math.abs(value) <= INT_MAX and value or nil
end

local present, sum = is_present(e), tonumber(ARGV[8])
if present then
    local base = read_integer()
    if not base then return refuse(e, TYPE) end
    sum = base + ARGV[9] + ARGV[10]
    if sum < tonumber(ARGV[11]) or sum > tonumber(ARGV[12]) then sum = nil end
end
if not sum then return refuse(e, BOUNDS) end

local ttl = tonumber(ARGV[13])
local new = {version = next_version(e), attempt = 1, state = 'p', format = '1',
    token = token, lease = 0, kept = ttl > 0 and now() + ttl or 0}
if new.version > VERSION_MAX then return {nonce, -1} end
if present then new.attempt, new.kept = e.attempt, e.kept end
write(e, new, string.format('%.0f', sum))
tell()
return {nonce, 1, new.version, sum}
