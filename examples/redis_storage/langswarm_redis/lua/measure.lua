-- How many messages there are behind a number, and which one stands at a position among them.
--
-- KEYS[1]  the session's hash
-- ARGV     prefix, session id, the number, how many precede the one that is asked for (or ''),
--          whose session it must be, its number ('' for any)
-- Returns  false if there is no session; else the count, the number of that message (or ''), and
--          the numbers of the messages with several tools' results
local session, prefix, id, after, skip = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local row = redis.call('HMGET', session, 'number', 'user_id')
if not row[1] or row[2] ~= ARGV[5] or not (ARGV[6] == '' or ARGV[6] == row[1]) then
  return false
end
local messages = prefix .. 'm:' .. id
local count, at = redis.call('ZCOUNT', messages, '(' .. after, '+inf'), ''
if skip ~= '' and tonumber(skip) < count then
  local place = redis.call('ZCOUNT', messages, '-inf', after) + skip
  at = string.match(redis.call('ZRANGE', messages, place, place)[1], '^%d+')
end
return { count, at, redis.call('ZRANGEBYSCORE', prefix .. 'w:' .. id, '(' .. after, '+inf') }
