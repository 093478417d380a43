-- Tells everyone who waits for the key that it may have become free. What stands in the way of that
-- (a user who may not publish, a slot that is being moved) must not keep a release from being one,
-- and is passed over: they look again when the time left has gone by that they were told of.
local function wake(base)
    local waiting = base .. 'w'
    if redis.pcall('EXISTS', waiting) ~= 1 then return end
    redis.pcall('ZREMRANGEBYSCORE', waiting, '-inf', now())
    local channels = redis.pcall('ZRANGE', waiting, 0, 4095)
    for i = 1, #channels do
        redis.pcall('PUBLISH', channels[i], waiting)
    end
end
