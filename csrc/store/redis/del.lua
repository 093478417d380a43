-- Removes an entry, if its condition holds and no newer fence has been seen.
--
-- KEYS   1 the entry
-- ARGV   as in write.part.lua
-- Gives  nonce, 1

--@ time
--@ entry
--@ watching
--@ write

local e, problem = read()
if problem then return problem end
local why
if is_present(e) then why = judge(e) else why = judge_fence(e) or VERSION end
if why then return refuse(e, why) end

-- A tombstone keeps the fence; and the version, where the clock has been set back behind it.
if lock ~= '' or remembers(e) or e.version >= now_us() then
    write_though_full()
    write(e, {version = e.version, attempt = 0, state = 't', format = '0', token = NOBODY,
        lease = 0, kept = now()}, '')
else
    redis.call('DEL', name)
end
tell()
return {nonce, 1}
