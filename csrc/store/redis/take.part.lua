-- What take and vote have in common: see take.lua. n_args says how many of ARGV are the take's, and
-- seed() what a counter of another epoch goes on from.
local NOT_THE_OWNER, HOLDS_SOME, FENCES_USED_UP = -1, -2, -3
local FENCE_MAX = 9007199254740991
local MARK_MS = 2000

local call, match = redis.call, string.match
local nonce, token = tonumber(ARGV[1]), ARGV[2]

-- The number after the one in a key's state. A state of another epoch may be an old one: then a
-- clock decides, which has gone on since.
local function next_fence(state)
    local counter, epoch = match(state or '', '^(%d+) (%S+)')
    if epoch == ARGV[5] and epoch ~= '-' then return counter + 1 end
    return math.max((counter or 0) + 1, seed())
end

-- A key's state, and the details of one who shares it: fence, epoch, token, what is told.
local function describe(fence, holder)
    return string.format('%.0f %s %s %s', fence, ARGV[5], holder, ARGV[7])
end

-- The plain case, and the one that must be quick: one key, exclusively, nobody waits. Four calls.
if n_args == 8 then
    local lease, state = KEYS[1], KEYS[2]
    local base = string.sub(state, 1, -2)
    local fence = next_fence(call('GET', state))
    if call('EXISTS', base .. 'w', base .. 'i') == 0 and fence <= FENCE_MAX
        and call('SET', lease, token, 'PX', ARGV[3], 'NX') then
        call('SET', state, describe(fence, token), 'PX', ARGV[4])
        return {nonce, 1, fence, 0}
    end
end

--@ time
--@ keys
--@ shared

local limit, replaced = 1, ''
if n_args > 8 then limit, replaced = tonumber(ARGV[9]), ARGV[10] end
local ttl = ARGV[3] + 1

-- What the keys come to.
local own, own_fence = 0, 0 -- how many of them the token holds, and its newest fence
local lost = false          -- a fence of its own is not known any more
local exchanged = 0         -- how many of them the token to be replaced holds
local left                  -- until the first of those in the way lapses
local blind = false         -- one of those in the way will not tell when it goes
local told                  -- one in the way

local function is_in_the_way(ms, holder, text, is_mark)
    if ms and (not left or ms < left) then left = ms end
    if not told or (told.is_mark and not is_mark) then
        told = {holder = holder, left = ms or -1, text = text, is_mark = is_mark}
    end
end

-- The token has the key already. Should its state or its details be gone (evicted, or deleted by
-- hand), so is its fence.
local function is_own(fence)
    own = own + 1
    if not fence then lost = true end
    own_fence = math.max(own_fence, tonumber(fence or 0))
end

-- The least limit of those who share the key now. It is looked for only where it decides: there are
-- never more of them than the limit that is kept, so there are not many. What is not known (evicted,
-- deleted by hand) could be any, and lets nobody in.
local function least_limit(key)
    local limits, least = {}, 4294967295
    local all = call('HGETALL', key.base .. 'h')
    for i = 1, #all, 2 do
        limits[all[i]] = tonumber(match(all[i + 1], '^%d+ %S+ %S+ %d+ (%d+)'))
    end
    for _, member in ipairs(call('ZRANGEBYSCORE', key.base .. 'z', '(' .. now(), '+inf')) do
        least = math.min(least, limits[member] or 1)
    end
    return least
end

local function look_at_sharers(key)
    local z, h = key.base .. 'z', key.base .. 'h'
    key.least = tonumber(call('HGET', h, '') or 1)
    if shares(key, token) then
        is_own(match(call('HGET', h, token) or '', '^%d+'))
        return
    end
    local count = call('ZCOUNT', z, '(' .. now(), '+inf')
    key.is_shared = count > 0
    if not key.is_shared then return end
    if count + 1 <= limit and count + 1 > key.least then key.least = least_limit(key) end
    if count + 1 <= math.min(limit, key.least) then return end
    local first = call('ZRANGEBYSCORE', z, '(' .. now(), '+inf', 'WITHSCORES',
        'LIMIT', 0, 1)
    is_in_the_way(first[2] - now(), first[1], call('HGET', h, first[1]) or '')
end

local function look_at_holder(key)
    local fence, holder, n_keys = match(key.text or '', '^(%d+) %S+ (%S+) (%d+)')
    local is_known = holder == key.held
    if key.held == token then
        is_own(is_known and fence)
        return
    end
    if is_known and key.held == replaced then
        if tonumber(n_keys) == #keys then exchanged = exchanged + 1 end
        return
    end
    local ms = call('PTTL', key.lease)
    if not is_known or ms < 0 then blind = true end
    ms = ms >= 0 and ms + 1 or nil
    if is_known then
        is_in_the_way(ms, holder, key.text)
    else
        is_in_the_way(ms, '', '')
    end
end

local function look_at_marks(key)
    local marks = call('ZRANGEBYSCORE', key.base .. 'i', '(' .. now(), '+inf', 'WITHSCORES',
        'LIMIT', 0, 2)
    for i = 1, #marks, 2 do
        if marks[i] ~= token then
            is_in_the_way(marks[i + 1] - now(), marks[i], '', true)
            return
        end
    end
end

local companions = {}
for _, key in ipairs(keys) do
    key.text = call('GET', key.state)
    key.held = call('GET', key.lease)
    companions[#companions + 1] = key.base .. 'w'
    companions[#companions + 1] = key.base .. 'i'
end
local waiting = call('EXISTS', unpack(companions)) > 0
for _, key in ipairs(keys) do
    if key.held == SHARED then
        look_at_sharers(key)
    elseif key.held then
        look_at_holder(key)
    end
    if limit > 1 and waiting then look_at_marks(key) end
end

-- Whether another instance than this one is noted as waiting for one of the keys.
local function is_awaited()
    local others = 0
    for _, key in ipairs(waiting and keys or {}) do
        local mine = call('ZSCORE', key.base .. 'w', ARGV[6])
        others = others + call('ZCOUNT', key.base .. 'w', '(' .. now(), '+inf')
        if mine and tonumber(mine) > now() then others = others - 1 end
    end
    return others > 0 and 1 or 0
end

-- The one number for all keys, above all that any of them has had.
local function new_fence()
    local fence = 0
    for _, key in ipairs(keys) do
        fence = math.max(fence, next_fence(key.text))
    end
    return fence
end

local function lengthen(key)
    local z = key.base .. 'z'
    if key.held ~= SHARED then
        if call('PTTL', key.lease) + 1 >= ttl then return end
        call('PEXPIRE', key.lease, ARGV[3])
        call('PEXPIRE', key.state, ARGV[4])
    elseif tonumber(call('ZSCORE', z, token)) < now() + ttl then
        call('ZADD', z, now() + ttl, token)
        call('PEXPIRE', key.state, settle(key) - now() + ARGV[4] - ttl)
    end
end

-- The same take once more: its answer may have been lost.
local function take_again()
    local awaited = is_awaited()
    if lost then own_fence = math.max(own_fence, new_fence()) end
    for _, key in ipairs(keys) do
        if lost and key.held == SHARED then
            call('HSET', key.base .. 'h', token, describe(own_fence, token))
        elseif lost then
            call('SET', key.state, describe(own_fence, token), 'PX', ARGV[4])
        end
        lengthen(key)
    end
    return {nonce, 1, own_fence, awaited}
end

-- A refusal leaves what the taker asked for, in this same step: no release can pass it by.
local function refuse()
    local leaves = ARGV[8]
    for _, key in ipairs(keys) do
        if limit == 1 and string.find(leaves, 'i', 1, true) then
            call('ZADD', key.base .. 'i', now() + math.min(ttl, MARK_MS), token)
            call('PEXPIRE', key.base .. 'i', MARK_MS)
        end
        if string.find(leaves, 'w', 1, true) then
            call('ZADD', key.base .. 'w', now() + (left or 1000), ARGV[6])
            call('PEXPIRE', key.base .. 'w', 86400000)
        end
    end
    return {nonce, 0, left or -1, blind and 1 or 0, told.holder, told.left, told.text}
end

if own == #keys then return take_again() end
if own > 0 then return {nonce, HOLDS_SOME} end
if replaced ~= '' then
    if limit ~= 1 or exchanged < #keys then return {nonce, NOT_THE_OWNER} end
elseif told then
    return refuse()
end

-- Admitted: from here on nothing can fail but the first write.
local fence = new_fence()
if fence > FENCE_MAX then return {nonce, FENCES_USED_UP} end
local awaited = is_awaited()

local function hold_alone(key)
    call('SET', key.lease, token, 'PX', ARGV[3])
    if key.held == SHARED then call('DEL', key.base .. 'z', key.base .. 'h') end
    call('SET', key.state, describe(fence, token), 'PX', ARGV[4])
end

local function hold_with_others(key)
    local z, h = key.base .. 'z', key.base .. 'h'
    if key.is_shared then
        call('ZADD', z, now() + ttl, token)
        -- Those whose time is up do not count; a few at a time, they go.
        for _, member in ipairs(call('ZRANGEBYSCORE', z, '-inf', now(), 'LIMIT', 0, 100)) do
            call('ZREM', z, member)
            call('HDEL', h, member)
        end
    else
        call('SET', key.lease, SHARED, 'PX', ARGV[3])
        call('DEL', z, h)
        call('ZADD', z, now() + ttl, token)
        key.least = limit
    end
    local least = string.format('%.0f', math.min(key.least, limit))
    call('HSET', h, token, describe(fence, token), '', least)
    call('SET', key.state, describe(fence, '-'), 'PX', settle(key) - now() + ARGV[4] - ttl)
end

for _, key in ipairs(keys) do
    if limit == 1 then hold_alone(key) else hold_with_others(key) end
    if waiting then
        call('ZREM', key.base .. 'i', token)
        call('ZREM', key.base .. 'w', ARGV[6])
    end
end
return {nonce, 1, fence, awaited}
