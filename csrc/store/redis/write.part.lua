-- What put, del and add have in common: the first seven of their ARGV,
--        1 nonce   2 token   3 condition   4 version   5 lock key or ""   6 its fence
--        7 "e" if the entry is to be shown when the write is refused
-- and of what they give
--        nonce, 0, why (hf_refusal), the newest fence, now (ms), the entry or ""
--        nonce, -1: versions are used up
local OWNER, PRESENT, VERSION, FENCE, FENCE_KEY, BOUNDS, TYPE = 2, 3, 4, 5, 6, 7, 8
local IF_ANY, IF_ABSENT, IF_VERSION, IF_TOKEN, IF_CLAIMABLE = '0', '1', '2', '3', '4'
local VERSION_MAX = 9007199254740991

local nonce, token, condition = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local lock, fence = ARGV[5], tonumber(ARGV[6])

local function refuse(e, why)
    local shown = ARGV[7] == 'e' and is_present(e) and redis.call('GET', name) or ''
    return {nonce, 0, why, e and e.fence or 0, now(), shown}
end

-- Why the fence forbids the write, why the condition does; nil where they allow it.
local function judge_fence(e)
    if lock == '' or not remembers(e) then return nil end
    if lock_of(e) ~= lock then return FENCE_KEY end
    return e.fence > fence and FENCE or nil
end

local function judge_condition(e)
    local present = is_present(e)
    if condition == IF_ANY then return nil end
    if condition == IF_ABSENT then return present and PRESENT or nil end
    if condition == IF_VERSION then
        return not (present and e.version == tonumber(ARGV[4])) and VERSION or nil
    end
    if condition == IF_TOKEN then
        return not (present and token ~= NOBODY and e.token == token) and OWNER or nil
    end
    local is_claimable = not present or (e.state == 'c' and e.lease <= now())
    return not is_claimable and PRESENT or nil
end

local function judge(e)
    return judge_fence(e) or judge_condition(e)
end

-- Never one that the key has had: above what is written there, and in step with the clock.
local function next_version(e)
    return math.max(now_us(), e and e.version + 1 or 0)
end

-- Writes the entry. A fence that is remembered lives on, unless the write has its own.
local function write(e, new, value)
    local kept_lock, kept_fence = lock, fence
    if lock == '' and remembers(e) then kept_lock, kept_fence = lock_of(e), e.fence end
    local head = string.format(FORMAT, new.version, new.attempt, new.state, new.format,
        new.token, new.lease, new.kept, now_us(), kept_fence, #kept_lock)
    if new.kept == 0 then
        redis.call('SET', name, head .. kept_lock .. value)
        return
    end
    local lasts = new.kept - now()
    if kept_lock ~= '' or new.state == 't' then lasts = lasts + DAY_MS end
    redis.call('SET', name, head .. kept_lock .. value, 'PX', string.format('%.0f', lasts))
end

-- Tells of a change. Each who is told is told once, and asks anew if it still wants to know. Nothing
-- that is in the way of that undoes the change.
local function tell()
    if redis.pcall('EXISTS', watching) ~= 1 then return end
    local channels = redis.pcall('SMEMBERS', watching)
    redis.pcall('DEL', watching)
    for i = 1, #channels do
        redis.pcall('PUBLISH', channels[i], watching)
    end
end
