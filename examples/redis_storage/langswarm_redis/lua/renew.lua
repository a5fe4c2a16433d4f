-- Extends leases. A version moves with it, so that nobody takes over what is just being renewed.
--
-- ARGV     prefix, microseconds, then each lease: session id, token, whose session it
--          must be, its number ('' for any)
-- Returns  the tokens that are still held
local time = redis.call('TIME')
local expires = string.format('%.0f', time[1] * 1000000 + time[2] + ARGV[2])
local held = {}
for at = 3, #ARGV, 4 do
  local session = ARGV[1] .. 's:' .. ARGV[at]
  local row = redis.call('HMGET', session, 'turn_token', 'version', 'user_id', 'number')
  local is_own = row[3] == ARGV[at + 2] and (ARGV[at + 3] == '' or ARGV[at + 3] == row[4])
  if is_own and row[1] == ARGV[at + 1] then
    redis.call('HSET', session, 'turn_expires', expires, 'version', row[2] + 1)
    held[#held + 1] = row[1]
  end
end
return held
