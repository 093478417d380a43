-- Where instances leave their channel that are to be told of the next change of the entry: "V" of
-- the value "v", "R" of the record "r".
local watching = string.sub(name, 1, -2) .. string.upper(string.sub(name, -1))

-- A server whose memory is full can still be read: the hint is then lost.
local function leave(channel)
    if channel == '' then return end
    redis.pcall('SADD', watching, channel)
    redis.pcall('PEXPIRE', watching, DAY_MS)
end
