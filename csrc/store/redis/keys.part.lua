-- The keys. What else there is of a key is named as its state, but for the last letter.
local keys = {}
for i = 1, #KEYS, 2 do
    local state = KEYS[i + 1]
    keys[#keys + 1] = {lease = KEYS[i], state = state, base = string.sub(state, 1, -2)}
end
