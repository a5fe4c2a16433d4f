-- Runs commands if the session is still at the version that they were made for.
--
-- KEYS[1]  the session's hash
-- ARGV     again, nonce, version ('*': any, '-': none), then each command: its length, its words
-- Returns  the commands' replies; false if the session is at another version; 'made' if this is
--          said again, as the answer was lost, and was made the first time
local session, again, nonce, expected = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local row = redis.call('HMGET', session, 'number', 'version', 'recent')
if again == '1' and row[3] and string.find(row[3], nonce, 1, true) then
  return 'made'
end
local version = row[1] and row[1] .. '.' .. row[2] or '-'
if expected ~= '*' and expected ~= version then
  return false
end
local replies, at = {}, 4
while at <= #ARGV do
  local length = tonumber(ARGV[at])
  replies[#replies + 1] = redis.call(unpack(ARGV, at + 1, at + length))
  at = at + length + 1
end
return replies
