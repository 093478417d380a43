-- Those who share a key: what stands in the place of its lease meanwhile; who they are, by when
-- their time is up ("z"); and what is told of each ("h", and there under "" the least of their
-- limits, or one that is less).
local SHARED = 'holdfast:shared'

-- After any change: the lease lasts as long as the last of theirs (and a millisecond more, in which
-- nobody shares it any longer). False if none is left.
local function settle(key)
    local z, h = key.base .. 'z', key.base .. 'h'
    local last = tonumber(redis.call('ZREVRANGE', z, 0, 0, 'WITHSCORES')[2])
    if not last or last <= now() then
        redis.call('DEL', key.lease, z, h)
        return false
    end
    for _, name in ipairs({key.lease, z, h}) do
        redis.call('PEXPIREAT', name, last)
    end
    return last
end

-- Whether the token is one of them. The lease is SHARED.
local function shares(key, token)
    local score = redis.call('ZSCORE', key.base .. 'z', token)
    return score and tonumber(score) > now()
end
