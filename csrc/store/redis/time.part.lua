-- The server's clock in microseconds, and in milliseconds; read once, and only if it is needed.
local clock
local function now_us()
    if not clock then
        local t = redis.call('TIME')
        clock = t[1] * 1000000 + t[2]
    end
    return clock
end
local function now()
    return math.floor(now_us() / 1000)
end
