-- Where instances leave their channel that are to be told of the next change of the entry: "V" of
-- the value "v", "R" of the record "r".
local watching = string.sub(name, 1, -2) .. string.upper(string.sub(name, -1))
